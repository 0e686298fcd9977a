"""Seconds until a run can take its first step: first start and second start.

    python -m benchmarks.compile_time --setting small
    python -m benchmarks.compile_time --setting full --only search-first search-second

The first start fills a persistent compilation cache, a temporary folder, the second
one reads it; each is a process of its own. Per start: tracing, lowering and compiling
of the engine's program (wall and processor seconds), the first state (with what is
compiled for it), and all of it from the import of JAX on. Images are drawn at random
and not counted as data to be read. Result: ``benchmarks/results/compile_time_*.json``.
"""

import os
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import engine_programs, side_by_side
from benchmarks.engine_programs import Engine, Setting
from benchmarks.side_by_side import Built
from benchmarks.timing import CannotRun

CACHE = "ADARTS_BENCHMARK_CACHE"


def start(
    setting: Setting, *, kind: str, build: Callable[[Setting], Engine], is_second: bool
) -> Built:
    """Start one run and say what it took.

    Raises:
      CannotRun: a second start without a first one.
    """
    watch = engine_programs.Stopwatch()
    from adarts_jax.engine import compilation_cache

    place = Path(os.environ[CACHE]) / f"{kind}-{zlib.crc32(repr(setting).encode())}"
    if is_second and not any(place.rglob("*")):
        raise CannotRun(f"a second start comes after {kind}-first")
    used = compilation_cache.use_compilation_cache(str(place))
    if used is None:
        raise CannotRun("the cache folder is not private, see the warning above")
    setup = build(setting).setup | watch.read("start")
    kept = [*used.glob("*-cache"), *used.glob("programs/*")]
    setup["cached_programs"] = len(kept)
    return Built(setup, {})


def main() -> None:
    """Measure with a cache that is gone afterwards."""
    kinds = {
        "search": engine_programs.build_search,
        "retrain": engine_programs.build_retrain,
    }
    with tempfile.TemporaryDirectory(prefix="adarts_compile_time_") as folder:
        workers = {
            f"{kind}-{'second' if is_second else 'first'}": partial(
                start, kind=kind, build=build, is_second=is_second
            )
            for kind, build in kinds.items()
            for is_second in (False, True)
        }
        benchmark = side_by_side.Benchmark(
            "compile_time",
            "Seconds until a run can take its first step, without and with a cache.",
            engine_programs.SETTINGS,
            workers,
            programs=(),
            default_settings=("digits", "small", "full"),
            one_at_a_time=True,
            environment={
                CACHE: os.environ.get(CACHE, folder),
                "JAX_ENABLE_COMPILATION_CACHE": "true",
            },
        )
        side_by_side.main(benchmark)


if __name__ == "__main__":
    main()
