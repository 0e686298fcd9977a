"""What the workers of this library share: memory, compiling, facts about them."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.timing import Record


def begin() -> None:
    """Keep freed memory, as our programs do; before anything is compiled."""
    from adarts_jax.engine import host_memory

    host_memory.keep_freed_memory()


def compile_ahead(
    function: Callable[..., Any], *arguments: Any, donate: bool = False
) -> Any:
    """Compile as the engine does; with ``donate`` the first argument is given away.

    Returns:
      A ``compilation.Program``.
    """
    from adarts_jax.engine import compilation

    given_away = (0,) if donate else ()
    return compilation.compile_ahead(function, *arguments, donate_argnums=given_away)


def first_state(init: Callable[[Any], Any], key: Any) -> Any:
    """Draw the state a run begins with, as the engine does."""
    import jax

    from adarts_jax.engine import compilation

    return jax.block_until_ready(compilation.compile_quickly(init, key).call(key))


def cost_of_compiling(programs: Sequence[Any]) -> Record:
    """Return seconds of all programs together, and the memory of the largest one.

    ``compile_seconds`` is all of it, ``xla_seconds`` what is neither tracing nor
    lowering; ``_cpu_seconds`` are processor time of all threads.

    Args:
      programs: each a ``compilation.Program``.
    """
    memory = max(program.memory_bytes or 0 for program in programs)

    def total(stage: str, which: int) -> float:
        return sum(program.stages[stage][which] for program in programs)

    stages = {"trace": "trace", "lower": "lower", "xla": "compile"}
    wall = {f"{k}_seconds": total(stage, 0) for k, stage in stages.items()}
    processor = {f"{k}_cpu_seconds": total(stage, 1) for k, stage in stages.items()}
    return {
        "compile_seconds": sum(wall.values()),
        "compile_cpu_seconds": sum(processor.values()),
        **wall,
        **processor,
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
