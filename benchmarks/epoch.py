"""Seconds per epoch of the engine itself: augmentation, data on the device, checks.

    python -m benchmarks.epoch --setting small
    python -m benchmarks.epoch --setting full --only search retrain

Rows: a search epoch, a warm-up epoch of the search (weights alone), an epoch of
retraining. The programs, the order of the images and the loop over steps are the
engine's; the images are random bytes, on the device before the first step. The loop
runs under ``jax.transfer_guard("disallow")``: a transfer at any step would be an error.

A whole epoch is not run. Measured is a repetition of ``steps`` steps, and

    seconds per epoch = (median seconds of a repetition / steps) * steps per epoch,

without tests, checkpoints and what else happens between two epochs.
Result: ``benchmarks/results/epoch_<setting>.json``.
"""

from collections.abc import Mapping
from functools import partial

from benchmarks import engine_programs, floor, side_by_side
from benchmarks.engine_programs import Engine, Setting
from benchmarks.side_by_side import Built
from benchmarks.timing import Record

STEPS = "steps"


def search_worker(setting: Setting, *, is_warmup: bool = False) -> Built:
    """Build the epoch of a search."""
    engine = engine_programs.build_search(setting, is_warmup=is_warmup)
    return _built(engine, setting.steps)


def retrain_worker(setting: Setting) -> Built:
    """Build the epoch of a retraining."""
    return _built(engine_programs.build_retrain(setting), setting.steps)


def _built(engine: Engine, steps: int) -> Built:
    from adarts_jax.engine import pacing
    from benchmarks import ours

    training, done, clock = engine.training, 0, pacing.StepClock()

    def run_steps() -> None:
        nonlocal training, done
        training, done = pacing.run_steps(
            engine.advance,
            training,
            first=done,
            last=done + steps,
            clock=clock,
            should_stop=lambda: False,
            on_progress=lambda _: None,
        )

    work = floor.count(engine.calls * steps, unread=engine.unread_bytes)
    setup = engine.setup | {"work": {STEPS: work}, "steps_per_repetition": steps}
    return Built(setup, {STEPS: run_steps}, ours.device_peak_mib)


def per_epoch(row: Record) -> Record:
    """Extrapolate from a repetition to an epoch."""
    seconds = row["programs"][STEPS]["median_seconds"] / row["steps_per_repetition"]
    return {
        "seconds_per_step": seconds,
        "seconds_per_epoch_extrapolated": seconds * row["steps_per_epoch"],
    }


def print_rows(name: str, measured: Mapping[str, Record]) -> None:
    """Print the lines of all benchmarks, then one per kind of epoch."""
    side_by_side.print_summary(name, measured)
    for kind, row in measured.items():
        print(
            f"{name:7s} {kind:13s} {row['seconds_per_step']:.4f} s per step"
            f" x {row['steps_per_epoch']} steps of {row['batch_size']} images"
            f" = {row['seconds_per_epoch_extrapolated']:.1f} s per epoch (extrapolated)"
        )


BENCHMARK = side_by_side.Benchmark(
    "epoch",
    "Seconds per epoch of the engine, extrapolated from some steps.",
    engine_programs.SETTINGS,
    {
        "search": search_worker,
        "search-warmup": partial(search_worker, is_warmup=True),
        "retrain": retrain_worker,
    },
    (STEPS,),
    default_settings=("digits", "small", "full"),
    one_at_a_time=True,
    derive=per_epoch,
    print_rows=print_rows,
)

if __name__ == "__main__":
    side_by_side.main(BENCHMARK)
