"""What the program knows about accelerators: loops, waiting, memory, describing.

No model and no data here.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import jax
from jaxtyping import PyTree

from adarts_jax.errors import UserError


def wait_until_ready(tree: PyTree) -> None:
    """Wait until all arrays are computed, open to signals all the while.

    ``jax.block_until_ready`` would let a handler run only after the computation.
    """
    pause = 1e-4
    for array in jax.tree.leaves(tree):
        while not array.is_ready():
            time.sleep(pause)
            pause = min(2 * pause, 0.02)


def loops_on_the_host() -> bool:
    """Return whether steps are calls from the host instead of a loop in the program.

    So on a CPU: inside a loop XLA's CPU compiler replaces its fast convolutions by a
    slow one (measured: gradients of 5x5 convolutions 8 times slower), and a call costs
    next to nothing there.
    """
    return jax.default_backend() == "cpu"


@contextlib.contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Turn "out of memory" of the device into something a user can act on.

    Args:
      advice: what to make smaller, with the current values.

    Raises:
      UserError: the device has not enough memory.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        is_memory = isinstance(error, MemoryError)
        if not is_memory and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        device = jax.devices()[0].device_kind
        raise UserError(
            f"not enough memory on {device}: {advice}; or close other programs that "
            "use it (JAX takes XLA_PYTHON_CLIENT_MEM_FRACTION, 0.75, of a GPU)"
        ) from error


def describe_devices() -> dict[str, Any]:
    """Return kind and number of devices and the driver, for the manifest."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "count": jax.device_count(),
        "driver": " ".join(device.client.platform_version.split()),
        "host_cpus": os.cpu_count(),
    }
