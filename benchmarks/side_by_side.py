"""Measure the same programs in several implementations: command line and result file.

A benchmark names its settings and workers; building, taking turns and writing
``benchmarks/results/*.json`` is done here, on top of ``benchmarks.timing``.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import floor, machine_rates, result_file, timing
from benchmarks.timing import Record

ENVIRONMENT = {
    # Compile seconds mean a compilation, not a look-up in a cache.
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    # On a GPU several workers share its memory.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}

Program = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Built:
    """An implementation that is ready to be measured.

    Attributes:
      setup: what building cost, and what was built.
      programs: name to one blocking repetition.
      device_peak_mib: peak of an accelerator's memory so far; None without one.
    """

    setup: Record
    programs: Mapping[str, Program]
    device_peak_mib: Callable[[], float | None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What to measure.

    Attributes:
      name: module below ``benchmarks``, and start of the result files' names.
      summary: one line for ``--help``.
      settings: name to a dataclass instance with ``rounds`` and ``repetitions``.
      workers: implementation to the function that builds its programs for a setting,
        or raises ``timing.CannotRun``.
      programs: names of the programs every worker offers.
      default_settings: names of those measured unless chosen; empty for all.
      default_workers: likewise.
      one_at_a_time: each worker ends before the next one is built, so that many of them
        need not share the memory; they do not take turns then.
      derive: what else follows from the numbers of a row.
      print_rows: shows what was measured in a setting.
      environment: of the workers, on top of ``ENVIRONMENT``.
    """

    name: str
    summary: str
    settings: Mapping[str, Any]
    workers: Mapping[str, Callable[[Any], Built]]
    programs: Sequence[str]
    default_settings: Sequence[str] = ()
    default_workers: Sequence[str] = ()
    one_at_a_time: bool = False
    derive: Callable[[Record], Record] = lambda row: {}
    print_rows: Callable[[str, Mapping[str, Record]], None] | None = None
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


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
        measured: dict[str, Record] = {}
        together = [args.only]
        if benchmark.one_at_a_time:
            together = [[implementation] for implementation in args.only]
        for implementations in together:
            measured |= _compare(benchmark, name, setting, implementations, args)
        if not measured:
            sys.exit("error: this machine can run none of the implementations")
        _relate_to_machine(measured, args)
        for row in measured.values():
            row |= benchmark.derive(row)
        (benchmark.print_rows or print_summary)(name, measured)
        result = result_file.describe(
            benchmark.name, name, setting, measured, cores=args.cores
        )
        result_file.write(args.out, result)


def _work(build: Callable[[Any], Built], setting: Any, cores: int | None) -> None:
    """Be a worker: build one implementation and answer the parent."""
    if cores is not None:  # before the libraries size their thread pools
        os.sched_setaffinity(0, range(cores))
    with timing.private_stdout() as replies:
        try:
            built = build(setting)
        except timing.CannotRun as reason:
            timing.serve({"cannot_run": str(reason)}, {}, replies)
            return
        timing.serve(built.setup, built.programs, replies, built.device_peak_mib)


def _start_workers(
    benchmark: Benchmark,
    name: str,
    setting: Any,
    implementations: Sequence[str],
    args: argparse.Namespace,
) -> list[timing.Worker]:
    """Build workers one after the other; those that cannot run are left out."""
    workers, environment = [], ENVIRONMENT | dict(benchmark.environment)
    for implementation in implementations:
        command = [sys.executable, "-m", f"benchmarks.{benchmark.name}"]
        command += ["--worker", implementation, "--setting", name]
        for option in ("rounds", "repetitions"):
            command += [f"--{option}", str(getattr(setting, option))]
        command += [] if args.cores is None else ["--cores", str(args.cores)]
        timing.wait_until_quiet(args.patience)
        try:
            workers.append(timing.Worker(implementation, command, environment))
        except timing.CannotRun as reason:
            print(f"{implementation}: left out, {reason}", file=sys.stderr)
    return workers


def _compare(
    benchmark: Benchmark,
    name: str,
    setting: Any,
    implementations: Sequence[str],
    args: argparse.Namespace,
) -> dict[str, Record]:
    """Let workers take turns, program by program."""
    workers = _start_workers(benchmark, name, setting, implementations, args)
    measured = {worker.name: worker.setup | {"programs": {}} for worker in workers}
    for program in benchmark.programs:
        records = timing.measure_in_turn(
            workers,
            program,
            rounds=setting.rounds,
            repetitions=setting.repetitions,
            patience_seconds=args.patience,
        )
        for worker in workers:
            summary = timing.summarize(records[worker.name])
            measured[worker.name]["programs"][program] = summary
    for worker in workers:
        worker.close()
    return measured


def _relate_to_machine(
    measured: Mapping[str, Record], args: argparse.Namespace
) -> None:
    """Say of every program whose work is known how far from the floor it is."""
    known = [record for record in measured.values() if "work" in record]
    if not known:
        return
    rates = machine_rates.measure_apart(args.cores, ENVIRONMENT, args.patience)
    for record in known:
        record["machine_rates"] = rates
        for program, work in record["work"].items():
            numbers = record["programs"][program]
            numbers |= floor.compare(work, numbers["median_seconds"], rates)


def print_summary(name: str, measured: Mapping[str, Record]) -> None:
    """Print one line per implementation and program."""
    for implementation, record in measured.items():
        for program, numbers in record["programs"].items():
            quiet = "quiet" if numbers["quiet"] else "BUSY MACHINE"
            print(
                f"{name:7s} {implementation:12s} {program:12s}"
                f" {numbers['median_seconds']:8.3f} s"
                f" ({numbers['min_seconds']:.3f} to {numbers['max_seconds']:.3f}),"
                f" {numbers['cpu_seconds_per_repetition']:.3f} CPU s,"
                f" {_memory(numbers)}, {quiet}{_efficiency(numbers)}"
            )
        costs = {k: v for k, v in record.items() if k.endswith("_seconds")}
        costs.pop("warm_up_seconds", None)
        line = ", ".join(
            f"{k.removesuffix('_seconds')} {v:.1f}" for k, v in costs.items()
        )
        print(f"{name:7s} {implementation:12s} set-up, seconds: {line}")


def _memory(numbers: Record) -> str:
    text, device = f"{numbers['peak_mib']:.0f} MiB", numbers.get("device_peak_mib")
    return text if device is None else f"{text} (device {device:.0f} MiB)"


def _efficiency(numbers: Record) -> str:
    if "flops_per_second" not in numbers:
        return ""
    ratios = [numbers["ratio_to_floor"], numbers["ratio_to_floor_bytes_once"]]
    text = " to ".join(f"{ratio:.1f}" for ratio in ratios if ratio is not None)
    return (
        f", {numbers['bytes_per_second'] / 1e9:.2f} GB/s,"
        f" {numbers['flops_per_second'] / 1e9:.2f} GFLOP/s, {text} x floor"
    )


def _parse_arguments(benchmark: Benchmark) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=benchmark.summary)
    settings, workers = list(benchmark.settings), list(benchmark.workers)
    parser.add_argument(
        "--setting",
        choices=settings,
        nargs="+",
        default=list(benchmark.default_settings) or settings,
    )
    meanwhile = "" if benchmark.one_at_a_time else "; all stay in memory meanwhile"
    parser.add_argument(
        "--only",
        choices=workers,
        nargs="+",
        default=list(benchmark.default_workers) or workers,
        help=f"rows to measure; default: %(default)s{meanwhile}",
    )
    parser.add_argument("--rounds", type=int, help="quiet turns per row")
    parser.add_argument("--repetitions", type=int, help="repetitions per turn")
    parser.add_argument("--cores", type=int, help="cores per worker; default all")
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        help="seconds to wait for a quiet machine before a round",
    )
    parser.add_argument(
        "--out", type=Path, default=result_file.RESULTS, help="folder of results"
    )
    parser.add_argument("--worker", choices=workers, help=argparse.SUPPRESS)
    return parser.parse_args()
