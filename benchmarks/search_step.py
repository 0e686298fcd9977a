"""Seconds and memory of a search step: this library beside plain PyTorch.

    python -m benchmarks.search_step --setting small
    python -m benchmarks.search_step --setting full --rounds 3 --repetitions 1

Each setting is one alpha-ADARTS search network on random images. Measured are the
architecture and weight step together, the weight step alone (what warm-up epochs run),
the seconds to compile, and the peak memory. Result: ``benchmarks/results/``.
"""

import argparse
import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import timing
from benchmarks.search_step_workers import (
    BOTH_STEPS,
    SETTINGS,
    WEIGHT_STEP,
    WORKERS,
    Setting,
)
from benchmarks.timing import Record

RESULTS = Path(__file__).resolve().parent / "results"
# Compile seconds mean a compilation, not a look-up in a cache.
ENVIRONMENT = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def work(implementation: str, setting: Setting, cores: int | None) -> None:
    """Be a worker: build one implementation and answer the parent."""
    if cores is not None:  # before the libraries size their thread pools
        os.sched_setaffinity(0, range(cores))
    with timing.private_stdout() as replies:
        setup, programs = WORKERS[implementation](setting)
        timing.serve(setup, programs, replies)


def compare(
    name: str,
    setting: Setting,
    implementations: Sequence[str],
    *,
    cores: int | None,
    patience_seconds: float,
) -> Record:
    """Measure one setting.

    Workers are built one after the other, then take turns.

    Args:
      name: name of the setting.
      setting: its size, rounds and repetitions.
      implementations: names of workers.
      cores: cores a worker may use; None for all.
      patience_seconds: how long to wait for a quiet machine before each round.

    Returns:
      Set-up and measured programs of each implementation.
    """
    workers: list[timing.Worker] = []
    for implementation in implementations:
        command = [sys.executable, "-m", "benchmarks.search_step"]
        command += ["--worker", implementation, "--setting", name]
        command += [] if cores is None else ["--cores", str(cores)]
        timing.wait_until_quiet(patience_seconds)
        workers.append(timing.Worker(implementation, command, ENVIRONMENT))
    measured = {worker.name: worker.setup | {"programs": {}} for worker in workers}
    for program in (BOTH_STEPS, WEIGHT_STEP):
        records = timing.measure_in_turn(
            workers,
            program,
            rounds=setting.rounds,
            repetitions=setting.repetitions,
            patience_seconds=patience_seconds,
        )
        for worker in workers:
            summary = timing.summarize(records[worker.name])
            measured[worker.name]["programs"][program] = summary
    for worker in workers:
        worker.close()
    return measured


def print_summary(name: str, measured: Record) -> None:
    """Print one line per implementation and program."""
    for implementation, record in measured.items():
        for program, numbers in record["programs"].items():
            quiet = "quiet" if numbers["quiet"] else "BUSY MACHINE"
            print(
                f"{name:7s} {implementation:6s} {program:29s}"
                f" {numbers['median_seconds']:8.3f} s"
                f" ({numbers['min_seconds']:.3f} to {numbers['max_seconds']:.3f}),"
                f" {numbers['cpu_seconds_per_repetition']:.3f} CPU s,"
                f" {numbers['peak_mib']:.0f} MiB, {quiet}"
            )
        if "compile_seconds" in record:
            print(
                f"{name:7s} {implementation:6s} trace and compile"
                f" {record['compile_seconds']:.1f} s"
                f" ({record['compile_cpu_seconds']:.1f} CPU s),"
                f" init {record['init_seconds']:.1f} s"
            )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Seconds and memory of a search step, beside plain PyTorch."
    )
    parser.add_argument(
        "--setting", choices=SETTINGS, nargs="+", default=list(SETTINGS)
    )
    parser.add_argument("--only", choices=WORKERS, help="measure one implementation")
    parser.add_argument("--rounds", type=int, help="quiet turns per implementation")
    parser.add_argument("--repetitions", type=int, help="repetitions per turn")
    parser.add_argument("--cores", type=int, help="cores per worker; default all")
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        help="seconds to wait for a quiet machine before a round",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure the asked settings; write one result file each."""
    args = parse_arguments()
    counts = {"rounds": args.rounds, "repetitions": args.repetitions}
    changes = {key: count for key, count in counts.items() if count is not None}
    for name in args.setting:
        setting = dataclasses.replace(SETTINGS[name](), **changes)
        if args.worker:
            work(args.worker, setting, args.cores)
            return
        implementations = [args.only] if args.only else list(WORKERS)
        measured = compare(
            name,
            setting,
            implementations,
            cores=args.cores,
            patience_seconds=args.patience,
        )
        print_summary(name, measured)
        result = {
            "benchmark": "search_step",
            "setting": {"name": name} | dataclasses.asdict(setting),
            "command": shlex.join(
                ["python", "-m", "benchmarks.search_step", *sys.argv[1:]]
            ),
            "date": time.strftime("%Y-%m-%d"),
            "revision": timing.revision(),
            "machine": timing.machine_record(),
            "cores_per_worker": args.cores,
            "implementations": measured,
        }
        cores = f"_{args.cores}core" if args.cores else ""
        timing.write_result(args.out / f"search_step_{name}{cores}.json", result)


if __name__ == "__main__":
    main()
