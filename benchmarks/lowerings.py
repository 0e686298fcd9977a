"""Depthwise convolutions and pools: each lowering against the others.

    python -m benchmarks.lowerings
    python -m benchmarks.lowerings --setting search_full --only max_pool --most 10

Shapes are those the networks ask for, the heaviest first. Depthwise: shifted
multiply-adds, products with a matrix of pixel pairs (up to 16 x 16 pixels) and XLA's
grouped convolution. Pools: ours against ``lax.reduce_window``. All variants of a shape
are compiled as the engine compiles, and run in one process in turn. Result:
``benchmarks/results/lowerings_<setting>.json``.
"""

import argparse
import dataclasses
import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from adarts_jax.nn import depthwise, pooling
from benchmarks import network_calls, ours, result_file, timing
from benchmarks.network_calls import NETWORKS, Call
from benchmarks.timing import Record

Variants = dict[str, Callable[..., Any]]  # of (x, kernels, g)


MOST_PIXELS_OF_PAIRS = 16 * 16


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is measured of a network.

    Attributes:
      most: shapes of each kind.
      rounds: calls per variant.
      seconds: for the calls of a variant; the rest of the rounds is left out.
    """

    most: int
    rounds: int
    seconds: float


def passes(call: Call) -> dict[str, Variants]:
    """Return every variant of every pass."""
    forward = _depthwise(call) if call.kind == "depthwise" else _pools(call)

    def towards_input(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, kernels, g: jax.vjp(lambda x: function(x, kernels), x)[1](g)

    def towards_weights(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, kernels, g: jax.vjp(partial(function, x), kernels)[1](g)

    found = {
        "forward": {
            name: lambda x, kernels, g, function=function: function(x, kernels)
            for name, function in forward.items()
        },
        "input_gradient": {
            name: towards_input(function) for name, function in forward.items()
        },
    }
    if call.kind == "depthwise":
        found["weight_gradient"] = {
            name: towards_weights(function) for name, function in forward.items()
        }
    return found


def _depthwise(call: Call) -> Variants:
    return {
        lowering: partial(
            depthwise.depthwise_conv,
            stride=call.stride,
            dilation=call.dilation,
            lowering=lowering,
        )
        for lowering in _fitting(depthwise.Lowering, call)
    }


def _fitting(lowerings: Any, call: Call) -> list[str]:
    """Leave out matrices of pixel pairs that would take gigabytes."""
    pixels = call.shape[2] * call.shape[3]
    return [
        lowering
        for lowering in get_args(lowerings)
        if lowering != "matrix" or pixels <= MOST_PIXELS_OF_PAIRS
    ]


def _pools(call: Call) -> Variants:
    windows: Any = nn.max_pool
    own: dict[str, Any] = {"ours": pooling.max_pool}
    if call.kind == "avg_pool":
        windows = partial(nn.avg_pool, count_include_pad=False)
        own = {
            lowering: partial(pooling.avg_pool, lowering=lowering)
            for lowering in _fitting(pooling.MeanLowering, call)
        }

    def reduce_window(x: Any, kernels: Any) -> Any:
        strides = (call.stride,) * 2
        return jnp.stack(
            [
                windows(x[0], (k, k), strides, ((k // 2, k // 2),) * 2)
                for k in call.sizes
            ]
        )

    ours_of = {
        name: lambda x, _, pool=pool: pool(x, sizes=call.sizes, stride=call.stride)
        for name, pool in own.items()
    }
    return {**ours_of, "reduce_window": reduce_window}


def arguments(call: Call) -> tuple[Any, tuple[Any, ...], Any]:
    """Draw images, kernels, and a gradient towards the result."""
    draw = np.random.default_rng(0).standard_normal
    _, batch, height, width, channels = call.shape
    result = (len(call.sizes), batch, -(-height // call.stride))
    result += (-(-width // call.stride), channels)
    x, g = (jnp.asarray(draw(s, np.float32)) for s in (call.shape, result))
    kernels = [jnp.asarray(draw((k, k, channels), np.float32)) for k in call.sizes]
    return x, tuple(kernels), g


def measure(call: Call, setting: Setting) -> Record:
    """Time all variants of all passes of one shape, in turn."""
    given = arguments(call)
    programs = {}
    for name, variants in passes(call).items():
        compiled = {v: ours.compile_ahead(f, *given) for v, f in variants.items()}
        actions = {v: partial(_run, p, given) for v, p in compiled.items()}
        times: dict[str, list[float]] = {variant: [] for variant in variants}
        for action in actions.values():
            action()
        for _ in range(setting.rounds):
            for variant, action in actions.items():
                if sum(times[variant]) < setting.seconds:
                    times[variant].append(timing.timed(action))
        programs |= {
            f"{name}/{variant}": {
                "median_seconds": statistics.median(times[variant]),
                "min_seconds": min(times[variant]),
                "repetitions": len(times[variant]),
                "compile_cpu_seconds": ours.cost_of_compiling([program])[
                    "compile_cpu_seconds"
                ],
            }
            for variant, program in compiled.items()
        }
    return programs


def _run(program: Any, given: tuple[Any, ...]) -> None:
    jax.block_until_ready(program.call(*given))


def measure_quietly(call: Call, setting: Setting, patience_seconds: float) -> Record:
    """Measure one shape; say whether somebody else used the processor meanwhile."""
    timing.wait_until_quiet(patience_seconds)
    machine, own = timing.machine_cpu_seconds(), sum(os.times()[:2])
    programs: Record = {}
    seconds = timing.timed(lambda: programs.update(measure(call, setting)))
    others = timing.machine_cpu_seconds() - machine - (sum(os.times()[:2]) - own)
    elsewhere = max(0.0, others) / seconds
    is_quiet = timing.is_quiet({"cores_used_elsewhere": elsewhere})
    return {
        **ours.about(),
        "cores_used_elsewhere": elsewhere,
        "programs": {k: v | {"quiet": is_quiet} for k, v in programs.items()},
    }


def print_row(name: str, row: Record) -> None:
    """Print one line per pass, the variants beside each other."""
    by_pass: dict[str, list[str]] = {}
    for program, numbers in row["programs"].items():
        pass_name, variant = program.split("/")
        text = f"{variant} {1e3 * numbers['median_seconds']:.2f} ms"
        text += f" (compile {numbers['compile_cpu_seconds']:.1f} CPU s)"
        by_pass.setdefault(pass_name, []).append(text)
    busy = "" if row["cores_used_elsewhere"] <= timing.QUIET_CORES else "  BUSY MACHINE"
    for pass_name, texts in by_pass.items():
        print(f"{name} x{row['uses']} {pass_name}: {', '.join(texts)}{busy}")


def main() -> None:
    """Measure the heaviest shapes, print a line per pass, write JSON per network."""
    args = _parse_arguments()
    setting = Setting(args.most, args.rounds, args.seconds)
    ours.begin()
    for network in args.setting:
        calls, rows = NETWORKS[network](), {}
        for kind in args.only:
            for call, uses in network_calls.heaviest(calls, kind, args.most):
                row = measure_quietly(call, setting, args.patience) | {"uses": uses}
                print_row(str(call), row)
                rows[str(call)] = row
        result_file.write(
            args.out, result_file.describe("lowerings", network, setting, rows)
        )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Depthwise convolutions and pools, each lowering beside the others."
    )
    networks = [name for name in NETWORKS if name != "tiny"]
    parser.add_argument("--setting", choices=NETWORKS, nargs="+", default=networks)
    kinds = get_args(network_calls.Kind)
    parser.add_argument("--only", choices=kinds, nargs="+", default=kinds)
    parser.add_argument("--most", type=int, default=4, help="shapes per kind")
    parser.add_argument("--rounds", type=int, default=15, help="calls per variant")
    parser.add_argument("--seconds", type=float, default=0.5, help="per variant")
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        help="seconds to wait for a quiet machine before a shape",
    )
    parser.add_argument(
        "--out", type=Path, default=result_file.RESULTS, help="folder of results"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
