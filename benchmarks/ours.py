"""What the workers of this library share: memory, compiling, facts about them."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.timing import Record


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program.

    Attributes:
      call: takes arrays of the shapes it was compiled for.
      compile_seconds: tracing and compiling, wall time.
      compile_cpu_seconds: the same, processor time of all threads.
      memory_bytes: predicted peak; None where the compiler does not say.
    """

    call: Callable[..., Any]
    compile_seconds: float
    compile_cpu_seconds: float
    memory_bytes: int | None


def begin() -> None:
    """Keep freed memory, as our programs do; before anything is compiled."""
    from adarts_jax.engine import host_memory

    host_memory.keep_freed_memory()


def compile_ahead(
    function: Callable[..., Any], *arguments: Any, donate: bool = False
) -> Compiled:
    """Compile as the engine does; with ``donate`` the first argument is given away."""
    import jax

    from adarts_jax.engine import devices

    cpu = time.process_time()
    jitted = jax.jit(function, donate_argnums=0 if donate else ())
    program = devices.compile_ahead(jitted, *arguments)
    return Compiled(
        program.call,
        program.compile_seconds,
        time.process_time() - cpu,
        program.memory_bytes,
    )


def cost_of_compiling(programs: Sequence[Compiled]) -> Record:
    """Return seconds of all programs together, and the memory of the largest one."""
    memory = max(program.memory_bytes or 0 for program in programs)
    return {
        "compile_seconds": sum(p.compile_seconds for p in programs),
        "compile_cpu_seconds": sum(p.compile_cpu_seconds for p in programs),
        "predicted_mib": memory / 2**20 or None,
    }


def about() -> Record:
    """Return versions and the device in use."""
    import jax

    return {
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax")},
        "device": jax.devices()[0].device_kind,
    }


def device_peak_mib() -> float | None:
    """Return the peak of an accelerator's memory so far; None on a CPU."""
    import jax

    statistics = jax.devices()[0].memory_stats() or {}
    peak = statistics.get("peak_bytes_in_use")
    return None if peak is None else peak / 2**20
