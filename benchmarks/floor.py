"""How far a program is from what the machine allows.

The floor is the larger of two times: bytes that must move over the measured copy
bandwidth, and floating-point operations over the measured rate of matrix products
(``benchmarks.machine_rates``). How many bytes must move is not known; two counts bound
it:

* ``bytes_accessed``, by XLA: operands and results of every fused kernel. An upper
  bound, since caches serve a part of it; a program may be faster than this floor.
* ``bytes_once``: every byte of arguments, results and temporary buffers, once. A lower
  bound, since one buffer holds many values one after the other.

XLA counts the body of a loop once where it does not know how often it runs, and both
branches of a choice; calls into libraries may count as nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.timing import Record

# What a rate of `machine_rates` is called, by how products are computed.
DEFAULT, BFLOAT16 = "float32_default", "bfloat16"


def count(calls: Sequence[Any], *, products: str = DEFAULT, unread: int = 0) -> Record:
    """Count the work of one repetition.

    Args:
      calls: a ``jax.stages.Compiled`` for each call of the repetition.
      products: rate of ``machine_rates`` to compare with.
      unread: bytes among the arguments that a call does not read.
    """
    from adarts_jax.engine import host_memory

    with host_memory.garbage_kept():  # the counting itself takes 150 MB
        costs = [call.cost_analysis() or {} for call in calls]
        once = sum(_buffer_bytes(call) - unread for call in calls)
    return {
        "flops": sum(cost.get("flops", 0.0) for cost in costs),
        "bytes_accessed": sum(cost.get("bytes accessed", 0.0) for cost in costs),
        "bytes_once": once,
        "products": products,
    }


def _buffer_bytes(call: Any) -> int:
    memory = call.memory_analysis()
    if memory is None:
        return 0
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
    )


def compare(
    work: Mapping[str, Any], seconds: float, rates: Mapping[str, Any]
) -> Record:
    """Return achieved rates and the ratio to the floor.

    Args:
      work: of a repetition, from ``count``.
      seconds: of a repetition.
      rates: of the machine, from ``machine_rates``.
    """
    products = rates["matrix_flops_per_second"][work["products"]]
    arithmetic = work["flops"] / products

    def floor(what: str) -> float:
        return max(work[what] / rates["copy_bytes_per_second"], arithmetic)

    upper, lower = floor("bytes_accessed"), floor("bytes_once")
    return {
        "flops_per_second": work["flops"] / seconds,
        "bytes_per_second": work["bytes_accessed"] / seconds,
        "floor_seconds": upper,
        "floor_seconds_bytes_once": lower,
        "ratio_to_floor": seconds / upper if upper else None,
        "ratio_to_floor_bytes_once": seconds / lower if lower else None,
    }
