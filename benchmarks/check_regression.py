"""Compare two result files of a benchmark; say what became worse.

    python -m benchmarks.check_regression OLD.json NEW.json --threshold 10

Compared are medians, peaks of memory, and seconds of compiling, of all rows that both
files have. Prints one line per number that grew by more than the threshold. Status: 0
if there is none, 1 if there are some, 2 if the files cannot be read or compared.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.timing import Record

WATCHED = re.compile(r"(median_seconds|_mib|compile_(cpu_)?seconds)$")
COMPILING = re.compile(r"compile_(cpu_)?seconds$")
# Compilations differ by as much from start to start.
SMALLEST_COMPILE_SECONDS = 1.0
# How often was measured changes no median.
COUNTS = {"rounds", "repetitions", "seconds", "most"}


class CannotCompare(Exception):  # noqa: N818 - says why in one line
    """The files do not go together, or are no result files."""


def read(path: Path) -> Record:
    """Read a result file.

    Raises:
      CannotCompare: it cannot be read, or is something else.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CannotCompare(f"cannot read {str(path)!r}: {reason}") from None
    except ValueError as error:
        raise CannotCompare(f"{str(path)!r} is not valid JSON: {error}") from None
    expected = {"benchmark": str, "setting": dict, "machine": dict}
    expected["implementations"] = dict
    for key, kind in expected.items():
        if not isinstance(result, dict) or not isinstance(result.get(key), kind):
            raise CannotCompare(
                f"{str(path)!r} is no result file of a benchmark: {key!r} is missing"
            )
    if not all(isinstance(row, dict) for row in result["implementations"].values()):
        raise CannotCompare(f"{str(path)!r}: a row is not a table of numbers")
    return result


def check_comparable(old: Record, new: Record) -> None:
    """Check that both files measure the same on the same device.

    Raises:
      CannotCompare: they do not.
    """

    def identity(result: Record) -> dict[str, object]:
        setting = {k: v for k, v in result["setting"].items() if k not in COUNTS}
        return {
            "benchmark": result["benchmark"],
            **{f"setting {key}": value for key, value in setting.items()},
            "processor": result["machine"].get("processor"),
            "number of cores": result["machine"].get("cores"),
            "cores per worker": result.get("cores_per_worker"),
        }

    first, second = identity(old), identity(new)
    for name in sorted({*first, *second}):
        _check_same(name, first.get(name), second.get(name))
    shared = [row for row in old["implementations"] if row in new["implementations"]]
    if not shared:
        raise CannotCompare("the files have no row in common")
    for row in shared:
        devices = (r["implementations"][row].get("device") for r in (old, new))
        _check_same(f"device of {row}", *devices)


def _check_same(name: str, old: object, new: object) -> None:
    if old != new:
        raise CannotCompare(f"the files differ in {name}: {old!r} and {new!r}")


def numbers(row: Record, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Yield the watched numbers of a row with their names, ``program/number``."""
    for key, value in row.items():
        if isinstance(value, dict):
            yield from numbers(value, (*path, key))
        elif WATCHED.search(key) and isinstance(value, int | float):
            yield "/".join([*path, key]), float(value)


def is_worse(name: str, before: float, now: float, threshold: float) -> bool:
    """Whether a number grew by more than the threshold, in percent."""
    if COMPILING.search(name) and now - before < SMALLEST_COMPILE_SECONDS:
        return False
    return now > before * (1 + threshold / 100)


def regressions(old: Record, new: Record, threshold: float) -> list[str]:
    """Return a line per number that became worse."""
    lines = []
    for row, record in old["implementations"].items():
        found = dict(numbers(new["implementations"].get(row, {})))
        for name, before in numbers(record):
            now = found.get(name)
            if now is not None and is_worse(name, before, now, threshold):
                change = f"{100 * (now / before - 1):+.0f} %" if before else "from 0"
                name = name.removeprefix("programs/")
                lines.append(
                    f"{row:20s} {name:50s} {before:10.4g} {now:10.4g} {change}"
                )
    return lines


def missing(old: Record, new: Record) -> list[str]:
    """Return what the old file has and the new one lacks."""
    lacking = []
    for row, record in old["implementations"].items():
        if row not in new["implementations"]:
            lacking.append(row)
            continue
        found = dict(numbers(new["implementations"][row]))
        lacking += [f"{row} {name}" for name, _ in numbers(record) if name not in found]
    return lacking


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="check_regression", description="What became worse between two results."
    )
    parser.add_argument("old", type=Path, help="result file to compare with")
    parser.add_argument("new", type=Path, help="result file to check")
    parser.add_argument(
        "--threshold", type=float, default=10.0, help="percent (%(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        old, new = read(args.old), read(args.new)
        check_comparable(old, new)
    except CannotCompare as reason:
        print(f"error: {' '.join(str(reason).split())}", file=sys.stderr)
        return 2
    for name in missing(old, new):
        print(f"not compared, missing in {str(args.new)!r}: {name}", file=sys.stderr)
    lines = regressions(old, new, args.threshold)
    print("\n".join(lines) or f"nothing worse by more than {args.threshold:g} %")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
