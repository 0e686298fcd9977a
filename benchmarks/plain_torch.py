"""What the PyTorch workers share: the rows they come in, device, waiting.

The rows for GPUs were written without one at hand: untested there.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.side_by_side import Built, Program
from benchmarks.timing import CannotRun, Record, timed


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run the PyTorch reference.

    Attributes:
      keeps_memory: tell the C library what our programs tell it.
      channels_last: layout of images and weights.
      bfloat16: autocast of the forward pass.
      tf32: products with 10 bits on NVIDIA GPUs, which is JAX's default there; the
        other rows compute in full float32.
      compiled: by ``torch.compile``.
    """

    keeps_memory: bool = False
    channels_last: bool = False
    bfloat16: bool = False
    tf32: bool = False
    compiled: bool = False


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "torch": Variant(),
        "torch-kept": Variant(keeps_memory=True),
        "torch-channels-last": Variant(channels_last=True),
        "torch-bf16": Variant(bfloat16=True),
        "torch-tf32": Variant(tf32=True),
        "torch-compile": Variant(compiled=True),
    }
)


def rows(build: Callable[..., Built]) -> dict[str, Callable[[Any], Built]]:
    """Return a worker per variant.

    Args:
      build: takes a setting and, by name, the ``variant``.
    """
    return {name: partial(build, variant=each) for name, each in VARIANTS.items()}


def begin(variant: Variant) -> Any:
    """Prepare the process; return the device.

    Raises:
      CannotRun: not on this machine.
    """
    import torch

    from adarts_jax.engine import host_memory

    has_gpu = torch.cuda.is_available()
    if variant.tf32 and not has_gpu:
        raise CannotRun("TF32 needs an NVIDIA GPU")
    if variant.bfloat16 and has_gpu and not torch.cuda.is_bf16_supported():
        raise CannotRun("this GPU has no bfloat16")
    # JAX is imported by it, but never started.
    if variant.keeps_memory and not host_memory.keep_freed_memory():
        raise CannotRun("the C library is not glibc")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = variant.tf32
    torch.backends.cudnn.allow_tf32 = variant.tf32
    torch.backends.cudnn.benchmark = True  # what the originals do
    return torch.device("cuda" if has_gpu else "cpu")


def place(network: Any, variant: Variant, device: Any) -> Any:
    """Put a network on the device, in the layout and precision of the variant."""
    import torch

    network = network.to(device)
    if variant.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if variant.bfloat16:
        half = torch.autocast(device.type, dtype=torch.bfloat16)(network.forward)
        network.forward = lambda *arguments: _as_float32(half(*arguments))
    if variant.compiled:
        network.compile()
    return network


def put_batch(
    batch: tuple[np.ndarray, np.ndarray], variant: Variant, device: Any
) -> tuple[Any, Any]:
    """Put NHWC images and labels on the device as PyTorch wants them."""
    import torch

    images, labels = map(torch.from_numpy, batch)
    last = torch.channels_last if variant.channels_last else torch.contiguous_format
    images = images.permute(0, 3, 1, 2).to(device).contiguous(memory_format=last)
    return images, labels.long().to(device)


def finish(
    setup: Record, programs: Mapping[str, Program], variant: Variant, device: Any
) -> Built:
    """Return programs that wait for the device, with what is known of all rows.

    Raises:
      CannotRun: ``torch.compile`` gave up.
    """
    import torch

    waiting = {name: _waiting(run, device) for name, run in programs.items()}
    setup = setup | {
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda},
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "variant": dataclasses.asdict(variant),
    }
    if variant.compiled:
        try:
            setup["compile_seconds"] = sum(map(timed, waiting.values()))
        except RuntimeError as error:  # the base of all errors of the compiler
            line = (str(error).strip().splitlines() or [""])[0]
            kind = type(error).__name__
            raise CannotRun(f"torch.compile failed: {kind}: {line[:200]}") from error
    peak = partial(_peak_mib, device)
    return Built(setup, waiting, peak)


def _waiting(run: Program, device: Any) -> Program:
    if device.type == "cpu":
        return run

    def run_and_wait() -> None:
        import torch

        run()
        torch.cuda.synchronize(device)

    return run_and_wait


def _device_name(device: Any) -> str:
    import torch

    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def _peak_mib(device: Any) -> float | None:
    import torch

    if device.type == "cpu":
        return None
    return torch.cuda.max_memory_allocated(device) / 2**20


def _as_float32(outputs: Any) -> Any:
    """Let the loss see float32, logits alone or with those of the auxiliary head."""
    if isinstance(outputs, tuple):
        return tuple(map(_as_float32, outputs))
    return None if outputs is None else outputs.float()
