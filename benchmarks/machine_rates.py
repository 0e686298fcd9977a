"""Measured rates of the device in use: copying memory, and products of matrices.

    python -m benchmarks.machine_rates

Prints one line of JSON. Other benchmarks run it as a process of its own, in the same
run, and relate their programs to it (``benchmarks.floor``). Rates are those of JAX
programs; the best of several repetitions counts. On a GPU the product of float32 at
default precision is one of TF32.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import floor, ours, timing
from benchmarks.timing import Record

REPETITIONS = 7
# Far more than fits caches; few enough seconds.
COPY_BYTES = {"cpu": 2**28, "gpu": 2**32}
MATRIX_SIDE = {"cpu": 1536, "gpu": 8192}


def measure() -> Record:
    """Return the rates of the first device."""
    import jax
    import jax.numpy as jnp

    ours.begin()
    kind = "cpu" if jax.default_backend() == "cpu" else "gpu"
    side, size = MATRIX_SIDE[kind], COPY_BYTES[kind]
    source = jnp.ones(size // 4, jnp.float32)
    # A plain copy would be handed through without a program.
    copied = 2 * size / _best_seconds(jnp.negative, source)
    source.delete()
    rates = {}
    for name, dtype, precision in (
        ("float32_highest", jnp.float32, "highest"),
        (floor.DEFAULT, jnp.float32, "default"),
        (floor.BFLOAT16, jnp.bfloat16, "default"),
    ):
        matrix = jnp.ones((side, side), dtype)

        def product(a: Any, b: Any, precision: str = precision) -> Any:
            return jnp.matmul(a, b, precision=precision)

        rates[name] = 2 * side**3 / _best_seconds(product, matrix, matrix)
    return {
        **ours.about(),
        "copy_bytes_per_second": copied,
        "copied_bytes": size,
        "matrix_flops_per_second": rates,
        "matrix_side": side,
    }


def _best_seconds(function: Callable[..., Any], *arguments: Any) -> float:
    import jax

    run = jax.jit(function).lower(*arguments).compile()

    def repetition() -> None:
        jax.block_until_ready(run(*arguments))

    repetition()
    return min(timing.timed(repetition) for _ in range(REPETITIONS))


def measure_apart(
    cores: int | None, environment: Mapping[str, str], patience_seconds: float
) -> Record:
    """Measure in a process of its own, when the machine is quiet."""
    command = [sys.executable, "-m", "benchmarks.machine_rates"]
    command += [] if cores is None else ["--cores", str(cores)]
    timing.wait_until_quiet(patience_seconds)
    worker = timing.Worker("machine_rates", command, environment)
    worker.close()
    return worker.setup


def main(argv: Sequence[str] | None = None) -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description="Measured rates of the device in use.")
    parser.add_argument("--cores", type=int, help="cores to use; default all")
    args = parser.parse_args(argv)
    if args.cores is not None:
        os.sched_setaffinity(0, range(args.cores))
    with timing.private_stdout() as replies:
        rates = measure()
        print(json.dumps(rates), file=replies, flush=True)


if __name__ == "__main__":
    main()
