"""What the program knows about accelerators: compiling, waiting, describing.

No model and no data here.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import logging
import os
import platform
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from adarts_jax.engine import host_memory
from adarts_jax.errors import UserError

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function.

    Attributes:
      call: takes arrays of the shapes it was compiled for; from ``compile_ahead`` a
        ``jax.stages.Compiled``, which tells its cost.
      compile_seconds: tracing and compiling (or reading from the cache), wall time.
      memory_bytes: predicted peak of the device, arguments included; None where the
        compiler does not say.
      stages: wall and processor seconds of "trace", "lower" and "compile".
    """

    call: Callable[..., Any]
    compile_seconds: float
    memory_bytes: int | None
    stages: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)


# What costs least on a CPU, measured on the search step (docs/performance.md): XLA's
# newer fusion emitters take twice as long to compile and run no faster there.
_FOR_MANY_CALLS = {
    "xla_backend_optimization_level": 1,
    "xla_cpu_use_fusion_emitters": False,
}
_FOR_ONE_CALL = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


def compile_ahead(function: Any, *shapes: PyTree) -> Program:
    """Compile a jitted function before its first call.

    Args:
      function: result of ``jax.jit``.
      *shapes: arguments, or ``ShapeDtypeStruct`` in their place.
    """
    stages: dict[str, tuple[float, float]] = {}
    with host_memory.garbage_kept():
        with _timed(stages, "trace"):
            traced = function.trace(*shapes)
        with _timed(stages, "lower"):
            lowered = traced.lower()
        with _timed(stages, "compile"):
            compiled = _compile(lowered, _FOR_MANY_CALLS)
        memory = _predicted_memory(compiled)
        del traced, lowered
    seconds = sum(wall for wall, _ in stages.values())
    return Program(compiled, seconds, memory, stages)


def compile_quickly(traced: Any) -> Callable[..., Any]:
    """Compile a traced function that runs only once, with hardly any optimization.

    Measured on a CPU, for the first state of a small search network: 13 instead of 89
    seconds of processor time, nearly all of it random numbers.

    Args:
      traced: result of ``jax.jit(...).trace(...)``.
    """
    return _compile(traced.lower(), _FOR_ONE_CALL)


@contextlib.contextmanager
def _timed(stages: dict[str, tuple[float, float]], name: str) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    stages[name] = time.perf_counter() - wall, time.process_time() - processor


def _compile(lowered: Any, cpu_options: dict[str, Any]) -> Any:
    """Compile in a thread of its own, or a signal would wait for the compiler.

    The options hold on a CPU only, and only if this version of XLA knows them.
    """
    options = cpu_options if jax.default_backend() == "cpu" else None
    with concurrent.futures.ThreadPoolExecutor(1, "compile") as pool:
        try:
            return pool.submit(lowered.compile, options).result()
        except jax.errors.JaxRuntimeError as error:
            if "No such compile option" not in str(error):
                raise
            return pool.submit(lowered.compile).result()


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


def use_compilation_cache(place: str | None = None) -> Path | None:
    """Keep compiled programs on disk, so that the next run starts quickly.

    JAX trusts what it finds there, so the folder must be the user's alone; one that
    others can write to, or that cannot be made, is not used (which is logged).
    A folder chosen for JAX itself (``JAX_COMPILATION_CACHE_DIR``) stays in force.

    Args:
      place: folder, ``"off"``, or None for ``$ADARTS_CACHE``, else
        ``~/.cache/adarts_jax/xla``.

    Returns:
      The folder in use; None for no cache.
    """
    place = place or os.environ.get("ADARTS_CACHE")
    if place == "off":
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    chosen_for_jax = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if place is None and chosen_for_jax:
        return Path(chosen_for_jax)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(place).expanduser() if place else base / "adarts_jax" / "xla"
    try:
        # Code for one processor may crash on another that mounts the same home.
        folder = root / _processor()
        for new in (root, folder):
            new.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(new)
    except OSError as error:
        _logger.warning(
            "compiled programs are not kept: %s (--compilation-cache chooses another "
            "folder)",
            error,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _check_private(folder: Path) -> None:
    info = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    if info.st_mode & others or (hasattr(os, "getuid") and info.st_uid != os.getuid()):
        raise PermissionError(f"others may write to {str(folder)!r}; chmod 700 it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write to {str(folder)!r}")


def _processor() -> str:
    """Return a short name of the processor and its instruction set."""
    features = platform.processor()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        found = re.search(r"^(flags|Features)\s*:(.*)$", text, re.MULTILINE)
        features = found[2] if found else features
    except OSError:
        pass  # not Linux
    digest = hashlib.sha256(" ".join(sorted(features.split())).encode()).hexdigest()
    return f"{platform.machine()}-{digest[:8]}"


def _predicted_memory(compiled: Any) -> int | None:
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )
