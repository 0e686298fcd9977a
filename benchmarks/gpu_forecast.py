"""What XLA makes of the engine's programs on an NVIDIA GPU, on a machine without one.

    pip install "jax[cuda13]"      # or cuda12; the GPU itself is not needed
    python -m benchmarks.gpu_forecast --setting small --only search

Compiles the programs of a search and of a training for an H200 and counts, per phase of
a step, the kernels and the bytes they read and write. Nothing runs, so nothing is timed
but the compiler: what is called a forecast here is

    seconds of a phase = sum over kernels of max(launch, bytes / bandwidth)

with 2 microseconds per launch and 4.0 TB/s, an assumption. It takes every kernel for a
copy, calls into libraries too, so a GPU may well be slower. What it is good for:
whether the programs compile at all, what a change does to the number of kernels and of
bytes, and which part has most of them. Libraries choose their kernels on the device
only; the compiler's seconds are those of this machine and without that choice.

Result: ``benchmarks/results/gpu_forecast_<setting>.json``.
"""

import argparse
import collections
import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import engine_programs, gpu_kernels, result_file
from benchmarks.engine_programs import SETTINGS, Engine, Setting
from benchmarks.timing import Record

LAUNCH_SECONDS, BYTES_PER_SECOND = 2e-6, 4.0e12

# XLA's description of the device, by NVIDIA's data sheets.
H200 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  device_memory_size: 150754820096  memory_bandwidth: 4800000000000
  l2_cache_size: 62914560
  threads_per_warp: 32  threads_per_block_limit: 1024  threads_per_core_limit: 2048
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
}
"""

BUILD: dict[str, Callable[[Setting], Engine]] = {
    "search": engine_programs.build_search,
    "retrain": engine_programs.build_retrain,
}


@contextlib.contextmanager
def compiling_for_gpu() -> Iterator[None]:
    """Let the engine compile for a GPU, and skip what would run on one."""
    import jax
    from jax.experimental import topologies

    from adarts_jax.engine import compilation

    # JAX asks the libraries for their versions, which cuPTI tells on a GPU only.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=H200, topology="1x1x1"
        )
    except NotImplementedError:
        sys.exit('error: no compiler for NVIDIA GPUs here: pip install "jax[cuda13]"')
    mesh = topologies.make_mesh(topology, (1,), ("device",))
    there = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    compile_here = compilation.compile_ahead

    def compile_ahead(
        function: Callable[..., Any], *shapes: Any, **options: Any
    ) -> compilation.Program:
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), shapes
        )
        return compile_here(function, *placed, **options)

    def only_shapes(function: Callable[..., Any], *shapes: Any) -> compilation.Program:
        result = jax.eval_shape(function, *shapes)
        return compilation.Program(lambda *_: result, 0.0, None, {}, result)

    with (
        mock.patch.object(jax, "default_backend", return_value="gpu"),
        mock.patch.object(jax, "block_until_ready", lambda tree: tree),
        mock.patch.object(compilation, "compile_ahead", compile_ahead),
        mock.patch.object(compilation, "compile_quickly", only_shapes),
    ):
        yield


def forecast(engine: Engine) -> Record:
    """Count the kernels of the step's programs and say what they may take."""
    different = {id(call): call for call in engine.calls}
    kernels = [
        kernel
        for call in different.values()
        for kernel in gpu_kernels.innermost(call.as_text())
    ]
    kinds = collections.Counter(kernel.kind for kernel in kernels)
    # The kernel that gathers a batch reads no more than that.
    read = sum(kernel.bytes for kernel in kernels) - engine.unread_bytes
    seconds = sum(map(_seconds, kernels)) - engine.unread_bytes / BYTES_PER_SECOND
    places: dict[str, float] = collections.defaultdict(float)
    for kernel in kernels:
        places[_place(kernel.source)] += _seconds(kernel)
    setup = {k: v for k, v in engine.setup.items() if not k.startswith("init")}
    steps, phases = setup["steps_per_epoch"], len(engine.calls)
    return setup | {
        "compiled_for": "NVIDIA H200, not present",
        "kernels_per_phase": len(kernels),
        "bytes_per_phase": read,
        "kernels_by_kind": dict(kinds.most_common()),
        "forecast_seconds_per_phase": seconds,
        "forecast_seconds_per_epoch": seconds * steps * phases,
        "forecast_seconds_by_place": dict(
            sorted(places.items(), key=lambda item: -item[1])[:12]
        ),
    }


def _seconds(kernel: gpu_kernels.Kernel) -> float:
    return max(LAUNCH_SECONDS, kernel.bytes / BYTES_PER_SECOND)


def _place(source: str) -> str:
    """Shorten an operation's name to pass and layer, the same for all cells."""
    way = "backward" if "transpose(" in source else "forward"
    inside = re.sub(r"^.*Network\)*/", "", source)
    if inside == source:
        return "outside of the network"
    names = [part for part in inside.split("/")[:-1] if not part.startswith("jit(")]
    shared = [re.sub(r"_\d+$", "", name) for name in names]
    return " ".join([way, *shared[1:4]])


def main(argv: Sequence[str] | None = None) -> None:
    """Compile, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_forecast",
        description="Kernels and bytes of the programs for an H200 that is not there.",
    )
    parser.add_argument(
        "--setting", nargs="+", choices=SETTINGS, default=["digits", "small", "full"]
    )
    parser.add_argument("--only", nargs="+", choices=BUILD, default=list(BUILD))
    parser.add_argument("--recipe", help="of configs/, in place of the setting's own")
    parser.add_argument("--out", type=Path, default=result_file.RESULTS)
    asked = parser.parse_args(argv)
    for name in asked.setting:
        setting = SETTINGS[name]
        if asked.recipe:
            setting = dataclasses.replace(
                setting, search_recipe=asked.recipe, retrain_recipe=asked.recipe
            )
            name = f"{name}_{Path(asked.recipe).stem}"
        rows = {}
        for kind in asked.only:
            with compiling_for_gpu():
                rows[kind] = row = forecast(BUILD[kind](setting))
            print(
                f"{name:7s} {kind:8s} {row['kernels_per_phase']:6d} kernels,"
                f" {row['bytes_per_phase'] / 1e9:6.2f} GB per phase:"
                f" {1e3 * row['forecast_seconds_per_phase']:.2f} ms at best,"
                f" {row['forecast_seconds_per_epoch']:.1f} s per epoch;"
                f" compiled in {row['xla_seconds']:.0f} s",
                flush=True,
            )
        assumed = {
            "launch_seconds": LAUNCH_SECONDS,
            "bytes_per_second": BYTES_PER_SECOND,
        }
        result = result_file.describe("gpu_forecast", name, setting, rows)
        print(result_file.write(asked.out, result | {"assumed": assumed}))


if __name__ == "__main__":
    main()
