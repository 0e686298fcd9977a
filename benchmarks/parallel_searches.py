"""Seconds, memory and compile time of searches side by side, against single ones.

    python -m benchmarks.parallel_searches --setting digits

Every row takes the same work, one step of four searches: one after the other, two by
two, or all four in one program (``--num-searches 4``). So the rows compare as they are,
and a quarter of each is the time per search. Result: ``benchmarks/results/``.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path

from benchmarks import ours, side_by_side
from benchmarks.side_by_side import Benchmark, Built

STEPS = "steps_of_four_searches"
SEARCHES = 4


@dataclasses.dataclass(frozen=True)
class Setting:
    """Size of the searches, on the embedded images, and how often to repeat."""

    init_channels: int
    num_cells: int
    batch_size: int
    rounds: int
    repetitions: int
    method: str = "alpha_adarts"


SETTINGS = {
    # only to see whether the benchmark runs
    "tiny": Setting(4, 1, 4, rounds=1, repetitions=2),
    # a search without any option
    "digits": Setting(8, 3, 32, rounds=7, repetitions=5),
    "wide": Setting(16, 4, 64, rounds=5, repetitions=2),
}


def build(setting: Setting, num_searches: int) -> Built:
    """Compile the step of a number of searches, as the engine does on this machine."""
    import jax

    from adarts_jax.config import SearchConfig
    from adarts_jax.engine import (
        parallel_searches,
        search_problem,
        search_program,
        search_setup,
    )

    ours.begin()
    network = {"init_channels": setting.init_channels, "num_cells": setting.num_cells}
    config = SearchConfig.model_validate(
        {
            "method": setting.method,
            "num_searches": num_searches,
            "batch_size": setting.batch_size,
            "network": network,
        }
    )
    place = Path("runs") / "never_written"
    start = search_setup.prepare(config, place, resume=False, overwrite=False)
    problem = search_problem.make_problem(config, start)
    key = parallel_searches.root_key(config)
    data = search_program.put_data(start, key)
    begun = time.perf_counter()
    training = ours.first_state(search_program.make_init(problem), key)
    init_seconds = time.perf_counter() - begun
    compiled = search_program.compile_search(problem, training, data)
    pace = search_setup.epoch_pace(config, config.epochs - 1)
    advance = compiled.advance(data, 0, pace)

    def run() -> None:
        nonlocal training
        for _ in range(SEARCHES // num_searches):
            training = advance(training, 1)
        jax.block_until_ready(training)

    setup = {
        "num_searches": num_searches,
        **ours.about(),
        "init_seconds": init_seconds,
        **ours.cost_of_compiling([compiled.program]),
    }
    return Built(setup, {STEPS: run}, ours.device_peak_mib)


BENCHMARK = Benchmark(
    name="parallel_searches",
    summary="Searches side by side in one program, against single ones.",
    settings=SETTINGS,
    workers={f"{n}_at_once": partial(build, num_searches=n) for n in (1, 2, SEARCHES)},
    programs=(STEPS,),
)


if __name__ == "__main__":
    side_by_side.main(BENCHMARK)
