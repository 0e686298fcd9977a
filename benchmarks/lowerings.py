"""Depthwise convolution: shifted multiply-adds against XLA's grouped convolution.

Per shape of the search network: compile seconds (processor time) and milliseconds per
call, forward, towards the input and towards the weights, all variants in one process
and in turn. Run: ``python -m benchmarks.lowerings [--out FILE.json]``.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adarts_jax.nn.depthwise import Lowering, depthwise_conv

# batch, size, channels: waves of 8 and 3 edges of the search network
SHAPES = ((32, 32, 16), (32, 32, 6), (32, 16, 32), (32, 8, 64), (64, 32, 32))
KERNELS = ((3, 1), (5, 1), (5, 2))  # size, dilation
LOWERINGS: tuple[Lowering, ...] = ("shifted", "grouped")


def programs(lowering: Lowering, dilation: int) -> dict[str, Callable[..., Any]]:
    """Return forward pass and both gradients as functions of (x, kernel, g)."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return depthwise_conv(x[None], (kernel,), dilation=dilation, lowering=lowering)[
            0
        ]

    def towards_input(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: convolve(x, kernel), x)[1](g)[0]

    def towards_weights(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](g)[0]

    return {
        "forward": lambda x, kernel, g: convolve(x, kernel) * g,
        "input_gradient": towards_input,
        "weight_gradient": towards_weights,
    }


def measure(shape: tuple[int, int, int], size: int, dilation: int, rounds: int) -> list:
    """Time all lowerings of one shape, in turn."""
    batch, side, channels = shape
    draw = np.random.default_rng(0).standard_normal
    x, g = (
        jnp.asarray(draw((batch, side, side, channels)), jnp.float32) for _ in range(2)
    )
    kernel = jnp.asarray(draw((size, size, channels)), jnp.float32)
    rows = []
    for name in programs("shifted", dilation):
        compiled, seconds = {}, {}
        for lowering in LOWERINGS:
            start = time.process_time()
            function = jax.jit(programs(lowering, dilation)[name])
            compiled[lowering] = function.lower(x, kernel, g).compile()
            seconds[lowering] = time.process_time() - start
            jax.block_until_ready(compiled[lowering](x, kernel, g))
        times: dict[str, list[float]] = {lowering: [] for lowering in LOWERINGS}
        for _ in range(rounds):
            for lowering, function in compiled.items():
                start = time.perf_counter()
                jax.block_until_ready(function(x, kernel, g))
                times[lowering].append(1e3 * (time.perf_counter() - start))
        rows += [
            {
                "batch_size_channels": shape,
                "kernel": size,
                "dilation": dilation,
                "pass": name,
                "lowering": lowering,
                "median_ms": round(statistics.median(times[lowering]), 3),
                "min_ms": round(min(times[lowering]), 3),
                "compile_cpu_seconds": round(seconds[lowering], 3),
            }
            for lowering in LOWERINGS
        ]
    return rows


def main() -> None:
    """Measure every shape, print a line each, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=15, help="calls per variant")
    options = parser.parse_args()
    rows = []
    for shape in SHAPES:
        for size, dilation in KERNELS:
            for row in measure(shape, size, dilation, options.rounds):
                print(json.dumps(row), flush=True)
                rows.append(row)
    if options.out:
        about = {
            "command": "python -m benchmarks.lowerings",
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "machine": platform.machine(),
        }
        options.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
