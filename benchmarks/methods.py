"""All search methods side by side: weights, step time, compile time, memory.

    python -m benchmarks.methods --setting digits
    python -m benchmarks.methods --setting small --only darts pc_darts --rounds 3

Every case is one search network on random images, in a process of its own, one after
the other. A step is all its phases: five passes for finite differences of the second
order, two for the first. Runs on whatever device JAX finds. Result:
``benchmarks/results/methods_<setting>.json``.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from benchmarks import side_by_side
from benchmarks.search_step_workers import (
    BOTH_STEPS,
    SETTINGS,
    WEIGHT_STEP,
    Case,
    jax_worker,
)
from benchmarks.timing import Record

CASES: Mapping[str, Case] = MappingProxyType(
    {
        "darts": Case("darts"),
        "darts_finite_difference": Case("darts", "finite_difference"),
        "darts_exact": Case("darts", "exact"),
        "pc_darts": Case("pc_darts"),
        "pc_darts_random": Case("pc_darts", options={"channel_choice": "random"}),
        "adarts": Case("adarts"),
        "alpha_adarts": Case("alpha_adarts"),
        "darts_with_attention": Case("darts_with_attention"),
        "g_darts_a": Case("g_darts_a"),
        "g_pc_darts_a": Case("g_pc_darts_a"),
        "att_darts_s": Case("att_darts_s"),
        "att_darts_p": Case("att_darts_p"),
        "random": Case("random", options={"weight_sharing": True}),
    }
)


def print_table(_setting: str, measured: Mapping[str, Record]) -> None:
    """Print one line per case."""
    print(
        f"{'case':24s} {'weights':>9s} {'step s':>8s} {'weight s':>8s}"
        f" {'compile s':>9s} {'CPU s':>7s} {'peak MiB':>8s}"
    )
    for name, record in measured.items():
        both, weight = (record["programs"][p] for p in (BOTH_STEPS, WEIGHT_STEP))
        busy = "" if both["quiet"] and weight["quiet"] else "  BUSY MACHINE"
        print(
            f"{name:24s} {record['num_parameters']:9d} {both['median_seconds']:8.3f}"
            f" {weight['median_seconds']:8.3f} {record['compile_seconds']:9.1f}"
            f" {record['compile_cpu_seconds']:7.1f} {both['peak_mib']:8.0f}{busy}"
        )


BENCHMARK = side_by_side.Benchmark(
    "methods",
    "Weights, seconds and memory of all search methods.",
    SETTINGS,
    {name: partial(jax_worker, case=case) for name, case in CASES.items()},
    (BOTH_STEPS, WEIGHT_STEP),
    default_settings=("digits",),
    one_at_a_time=True,
    print_rows=print_table,
)

if __name__ == "__main__":
    side_by_side.main(BENCHMARK)
