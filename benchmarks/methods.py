"""All search methods side by side: weights, step time, compile time, memory.

    python -m benchmarks.methods --setting digits
    python -m benchmarks.methods --setting small --only darts pc_darts --rounds 3

Every case is one search network on random images, in a process of its own, one after
the other. A step is all its phases: five passes for finite differences of the second
order, two for the first. Runs on whatever device JAX finds. Result:
``benchmarks/results/methods_<setting>.json``.
"""

import argparse
import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks import timing
from benchmarks.search_step_workers import (
    BOTH_STEPS,
    SETTINGS,
    WEIGHT_STEP,
    Program,
    Setting,
    random_batches,
)
from benchmarks.timing import Record

RESULTS = Path(__file__).resolve().parent / "results"
ENVIRONMENT = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to search.

    Attributes:
      method: its name.
      hessian: of the second order; None for the first.
      options: of the method.
    """

    method: str
    hessian: Any = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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


def build(case: Case, setting: Setting) -> tuple[Record, dict[str, Program]]:
    """Compile the phases of one case, as the engine does on this machine.

    Returns:
      What it cost, and the programs by name.
    """
    import jax
    import jax.numpy as jnp

    from adarts_jax.bilevel import steps, unrolled
    from adarts_jax.engine import devices
    from adarts_jax.engine.search_problem import make_updates

    problem = make_problem(case, setting)
    start = time.perf_counter()
    initialized = devices.compile_quickly(
        jax.jit(partial(first_state, problem)).trace(jax.random.key(1))
    )
    state = jax.block_until_ready(initialized(jax.random.key(1)))
    init_seconds = time.perf_counter() - start
    weight_batch, architecture_batch = jax.tree.map(
        jnp.asarray, random_batches(setting)
    )
    rates = {"weight_learning_rate": 0.025, "architecture_learning_rate": 6e-4}
    update, product = make_updates(problem)
    start, cpu = time.perf_counter(), time.process_time()
    compiled = [
        devices.compile_ahead(
            jax.jit(partial(function, **rates), donate_argnums=0),
            state,
            weight_batch,
            jnp.int32(0),
        )
        for function in (update, product)
        if function is not None
    ]
    compile_seconds = time.perf_counter() - start
    compile_cpu_seconds = time.process_time() - cpu

    def run(phases: tuple[int, ...]) -> None:
        nonlocal state
        for phase in phases:
            is_architecture = phase == steps.ARCHITECTURE
            batch = architecture_batch if is_architecture else weight_batch
            program = compiled[-1 if phase == unrolled.PRODUCT else 0]
            state, _ = program.call(state, batch, jnp.int32(phase))
        jax.block_until_ready(state)

    memory = [program.memory_bytes for program in compiled]
    setup = {
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax")},
        "device": jax.devices()[0].device_kind,
        "passes_per_step": len(problem.phases),
        "init_seconds": init_seconds,
        "compile_seconds": compile_seconds,
        "compile_cpu_seconds": compile_cpu_seconds,
        "predicted_mib": max(m or 0 for m in memory) / 2**20 or None,
        "num_weights": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "num_architecture": sum(leaf.size for leaf in jax.tree.leaves(state.arch)),
    }
    return setup, {
        BOTH_STEPS: partial(run, problem.phases),
        WEIGHT_STEP: partial(run, (steps.WEIGHT,)),
    }


def make_problem(case: Case, setting: Setting) -> Any:
    """Return what the engine would search with."""
    from adarts_jax.bilevel.optimizers import make_optimizers
    from adarts_jax.engine.epoch import Batching
    from adarts_jax.engine.search_problem import Problem
    from adarts_jax.methods import METHODS

    method = METHODS[case.method]
    network = method.make_network(
        init_channels=setting.init_channels,
        num_cells=setting.num_cells,
        num_classes=setting.num_classes,
        options={k: v for k, v in case.options.items() if k in method.options},
    )
    side = setting.image_size
    return Problem(
        method,
        network,
        make_optimizers(),
        method.initializations[0],
        (side, side, setting.image_channels),
        Batching(setting.batch_size, 1, lambda key, images: images),
        hessian=case.hessian,
        seed=0 if method.draws(case.options) else None,
    )


def first_state(problem: Any, key: Any) -> Any:
    """Draw the first state of a search."""
    from adarts_jax.bilevel import random_search, steps, unrolled

    state = steps.init_state(
        problem.network,
        problem.method.init_architecture(key),
        problem.optimizers,
        image_shape=problem.image_shape,
        key=key,
    )
    if problem.hessian is not None:
        state = unrolled.begin_unrolling(state)
    if not problem.method.trains_architecture:
        state = random_search.begin_random_search(state)
    return state


def work(name: str, setting: Setting, cores: int | None) -> None:
    """Be a worker: build one case and answer the parent."""
    if cores is not None:  # before the libraries size their thread pools
        os.sched_setaffinity(0, range(cores))
    with timing.private_stdout() as replies:
        setup, programs = build(CASES[name], setting)
        timing.serve(setup, programs, replies)


def measure(
    name: str, setting_name: str, setting: Setting, args: argparse.Namespace
) -> Record:
    """Measure one case in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.methods", "--worker", name]
    command += ["--setting", setting_name]
    command += [] if args.cores is None else ["--cores", str(args.cores)]
    timing.wait_until_quiet(args.patience)
    worker = timing.Worker(name, command, ENVIRONMENT)
    record: Record = worker.setup | {"programs": {}}
    for program in (BOTH_STEPS, WEIGHT_STEP):
        rounds = timing.measure_in_turn(
            [worker],
            program,
            rounds=setting.rounds,
            repetitions=setting.repetitions,
            patience_seconds=args.patience,
        )
        record["programs"][program] = timing.summarize(rounds[name])
    worker.close()
    return record


def print_table(measured: Mapping[str, Record]) -> None:
    """Print one line per case."""
    print(
        f"{'case':24s} {'weights':>9s} {'step s':>8s} {'weight s':>8s}"
        f" {'compile s':>9s} {'CPU s':>7s} {'peak MiB':>8s}"
    )
    for name, record in measured.items():
        both, weight = (record["programs"][p] for p in (BOTH_STEPS, WEIGHT_STEP))
        busy = "" if both["quiet"] and weight["quiet"] else "  BUSY MACHINE"
        print(
            f"{name:24s} {record['num_weights']:9d} {both['median_seconds']:8.3f}"
            f" {weight['median_seconds']:8.3f} {record['compile_seconds']:9.1f}"
            f" {record['compile_cpu_seconds']:7.1f} {both['peak_mib']:8.0f}{busy}"
        )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Weights, seconds and memory of all search methods."
    )
    parser.add_argument("--setting", choices=SETTINGS, default="digits")
    parser.add_argument("--only", choices=CASES, nargs="+", help="measure these alone")
    parser.add_argument("--rounds", type=int, help="quiet turns per case")
    parser.add_argument("--repetitions", type=int, help="repetitions per turn")
    parser.add_argument("--cores", type=int, help="cores per worker; default all")
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        help="seconds to wait for a quiet machine before a round",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--worker", choices=CASES, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure the asked cases; write one result file."""
    args = parse_arguments()
    counts = {"rounds": args.rounds, "repetitions": args.repetitions}
    changes = {key: count for key, count in counts.items() if count is not None}
    setting = dataclasses.replace(SETTINGS[args.setting](), **changes)
    if args.worker:
        work(args.worker, setting, args.cores)
        return
    measured = {
        name: measure(name, args.setting, setting, args) for name in args.only or CASES
    }
    print_table(measured)
    result = {
        "benchmark": "methods",
        "setting": {"name": args.setting} | dataclasses.asdict(setting),
        "command": shlex.join(["python", "-m", "benchmarks.methods", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "revision": timing.revision(),
        "machine": timing.machine_record(),
        "cores_per_worker": args.cores,
        "cases": measured,
    }
    timing.write_result(args.out / f"methods_{args.setting}.json", result)


if __name__ == "__main__":
    main()
