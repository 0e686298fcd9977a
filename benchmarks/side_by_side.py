"""Measure the same programs in several implementations: command line and result file.

A benchmark names its settings and workers; building, taking turns and writing
``benchmarks/results/*.json`` is done here, on top of ``benchmarks.timing``.
"""

import argparse
import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.timing import Record

RESULTS = Path(__file__).resolve().parent / "results"
# Compile seconds mean a compilation, not a look-up in a cache.
ENVIRONMENT = {"JAX_ENABLE_COMPILATION_CACHE": "false"}

Program = Callable[[], object]
BuildWorker = Callable[[Any], tuple[Record, dict[str, Program]]]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What to measure.

    Attributes:
      name: module below ``benchmarks``, and start of the result files' names.
      summary: one line for ``--help``.
      settings: name to a dataclass instance with ``rounds`` and ``repetitions``.
      workers: implementation to the function that builds its programs; returns what
        building cost, and one blocking repetition per program.
      programs: names of the programs every worker offers.
    """

    name: str
    summary: str
    settings: Mapping[str, Any]
    workers: Mapping[str, BuildWorker]
    programs: Sequence[str]


def main(benchmark: Benchmark) -> None:
    """Measure the asked settings; write one result file each."""
    args = _parse_arguments(benchmark)
    counts = {"rounds": args.rounds, "repetitions": args.repetitions}
    changes = {key: count for key, count in counts.items() if count is not None}
    for name in args.setting:
        setting = dataclasses.replace(benchmark.settings[name], **changes)
        if args.worker:
            _work(benchmark.workers[args.worker], setting, args.cores)
            return
        measured = _compare(
            benchmark, name, setting, args.only, args.cores, args.patience
        )
        _print_summary(name, measured)
        command = ["python", "-m", f"benchmarks.{benchmark.name}", *sys.argv[1:]]
        result = {
            "benchmark": benchmark.name,
            "setting": {"name": name} | dataclasses.asdict(setting),
            "command": shlex.join(command),
            "date": time.strftime("%Y-%m-%d"),
            "revision": timing.revision(),
            "machine": timing.machine_record(),
            "cores_per_worker": args.cores,
            "implementations": measured,
        }
        cores = f"_{args.cores}core" if args.cores else ""
        path = args.out / f"{benchmark.name}_{name}{cores}.json"
        timing.write_result(path, result)


def _work(build: BuildWorker, setting: Any, cores: int | None) -> None:
    """Be a worker: build one implementation and answer the parent."""
    if cores is not None:  # before the libraries size their thread pools
        os.sched_setaffinity(0, range(cores))
    with timing.private_stdout() as replies:
        setup, programs = build(setting)
        timing.serve(setup, programs, replies)


def _compare(
    benchmark: Benchmark,
    name: str,
    setting: Any,
    implementations: Sequence[str],
    cores: int | None,
    patience_seconds: float,
) -> Record:
    """Build the workers one after the other, then let them take turns."""
    workers: list[timing.Worker] = []
    for implementation in implementations:
        command = [sys.executable, "-m", f"benchmarks.{benchmark.name}"]
        command += ["--worker", implementation, "--setting", name]
        command += [] if cores is None else ["--cores", str(cores)]
        timing.wait_until_quiet(patience_seconds)
        workers.append(timing.Worker(implementation, command, ENVIRONMENT))
    measured = {worker.name: worker.setup | {"programs": {}} for worker in workers}
    for program in benchmark.programs:
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


def _print_summary(name: str, measured: Record) -> None:
    """Print one line per implementation and program."""
    for implementation, record in measured.items():
        for program, numbers in record["programs"].items():
            quiet = "quiet" if numbers["quiet"] else "BUSY MACHINE"
            print(
                f"{name:7s} {implementation:10s} {program:12s}"
                f" {numbers['median_seconds']:8.3f} s"
                f" ({numbers['min_seconds']:.3f} to {numbers['max_seconds']:.3f}),"
                f" {numbers['cpu_seconds_per_repetition']:.3f} CPU s,"
                f" {numbers['peak_mib']:.0f} MiB, {quiet}"
            )
        costs = {k: v for k, v in record.items() if k.endswith("_seconds")}
        costs.pop("warm_up_seconds", None)
        line = ", ".join(
            f"{k.removesuffix('_seconds')} {v:.1f}" for k, v in costs.items()
        )
        print(f"{name:7s} {implementation:10s} set-up, seconds: {line}")


def _parse_arguments(benchmark: Benchmark) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=benchmark.summary)
    settings, workers = list(benchmark.settings), list(benchmark.workers)
    parser.add_argument("--setting", choices=settings, nargs="+", default=settings)
    parser.add_argument(
        "--only",
        choices=workers,
        nargs="+",
        default=workers,
        help="implementations to measure; all of them stay in memory meanwhile",
    )
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
    parser.add_argument("--worker", choices=workers, help=argparse.SUPPRESS)
    return parser.parse_args()
