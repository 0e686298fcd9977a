"""Compiling functions ahead of their first call, and what is known of them.

On a CPU the equal cells of a network are compiled once, see `engine.chain`.
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
from jaxlib.mlir import passmanager
from jaxtyping import PyTree

from adarts_jax.engine import compilation_cache, host_memory, program_store
from adarts_jax.engine.chain import make_chain
from adarts_jax.engine.cut import cut, has_repeats
from adarts_jax.engine.fingerprint import NoFingerprintError, fingerprint
from adarts_jax.engine.sections import Traced, make_sections

Compiled = Any  # jax.stages.Compiled, or a Chain
Stages = dict[str, tuple[float, float]]  # wall and processor seconds

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function.

    Attributes:
      call: takes arrays of the shapes it was compiled for; a ``jax.stages.Compiled`` or
        something that is asked for cost and memory as one.
      compile_seconds: tracing and compiling (or reading from the cache), wall time.
      memory_bytes: predicted peak of the device, arguments included; None where the
        compiler does not say.
      stages: wall and processor seconds of "trace", "lower" and "compile".
      out_info: shape and type of every leaf of the result.
    """

    call: Callable[..., Any]
    compile_seconds: float
    memory_bytes: int | None
    stages: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    out_info: PyTree = None


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


def compile_ahead(
    function: Callable[..., Any], *shapes: PyTree, donate_argnums: tuple[int, ...] = ()
) -> Program:
    """Compile a function before its first call, or take it from the disk.

    Args:
      function: of arrays.
      *shapes: arguments, or ``ShapeDtypeStruct`` in their place.
      donate_argnums: arguments that every call gives away.
    """
    return _obtain(function, shapes, donate_argnums, _FOR_MANY_CALLS)


def compile_quickly(function: Callable[..., Any], *shapes: PyTree) -> Program:
    """Compile a function that runs only once, with hardly any optimization.

    Measured on a CPU, for the first state of a small search network: 13 instead of 89
    seconds of processor time, nearly all of it random numbers.

    Args:
      function: of arrays.
      *shapes: as in ``compile_ahead``.
    """
    return _obtain(function, shapes, (), _FOR_ONE_CALL)


def out_info(function: Callable[..., Any], *shapes: PyTree) -> PyTree:
    """Return shapes and types of what a function returns, without compiling it.

    Tracing takes seconds too, so a kept program is asked first.

    Args:
      function: as in ``compile_quickly``.
      *shapes: likewise.
    """
    name = _name(function, shapes, (), _FOR_ONE_CALL)
    kept = None if name is None else program_store.load(name)
    return jax.eval_shape(function, *shapes) if kept is None else kept.out_info


def _obtain(
    function: Callable[..., Any],
    shapes: tuple[PyTree, ...],
    donate_argnums: tuple[int, ...],
    cpu_options: Mapping[str, Any],
) -> Program:
    stages: Stages = dict.fromkeys(("trace", "lower"), (0.0, 0.0))
    name = _name(function, shapes, donate_argnums, cpu_options)
    with host_memory.garbage_kept():
        with _timed(stages, "compile"):
            kept = None if name is None else program_store.load(name)
        if kept is None:
            make = partial(_make, function, shapes, donate_argnums, cpu_options, stages)
            if name is None or not program_store.takes(shapes):
                kept = make()
            else:
                with compilation_cache.only_read() as found:
                    kept = make()
                if not found:
                    program_store.save(name, kept)
        memory = _predicted_memory(kept.call)  # takes 120 MB to tell
    seconds = sum(wall for wall, _ in stages.values())
    return Program(kept.call, seconds, memory, stages, kept.out_info)


def _make(
    function: Callable[..., Any],
    shapes: tuple[PyTree, ...],
    donate_argnums: tuple[int, ...],
    cpu_options: Mapping[str, Any],
    stages: Stages,
) -> program_store.Entry:
    # JAX keeps what it made of a function, program included, as long as that lives.
    short_lived = _renamed(lambda *arguments: function(*arguments), function)
    with _timed(stages, "trace"):
        traced = jax.jit(short_lived, donate_argnums=donate_argnums).trace(*shapes)
    return program_store.Entry(
        _compile_traced(traced, cpu_options, stages), traced.out_info
    )


def _renamed(new: Callable[..., Any], function: Any) -> Callable[..., Any]:
    """Give a function the name of another one, which may be a ``partial``."""
    named = getattr(function, "func", function)
    new.__name__ = getattr(named, "__name__", type(named).__name__)
    return new


def _name(function: Any, shapes: Any, donate: Any, cpu_options: Any) -> str | None:
    """Return what a program is kept under; None if it cannot be recognised."""
    leaves, tree = jax.tree.flatten(shapes)
    kinds = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    how = (donate, cpu_options, _keeps_names())
    try:
        return fingerprint(function, str(tree), kinds, how)
    except NoFingerprintError as error:
        _logger.debug("not kept: %s", error)
        return None


@contextlib.contextmanager
def _timed(stages: Stages, name: str) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    stages[name] = time.perf_counter() - wall, time.process_time() - processor


def _compile_traced(
    traced: Traced, cpu_options: Mapping[str, Any], stages: Stages
) -> Compiled:
    """Compile as a whole, or in parts where that pays.

    Compilers run in threads of their own, or a signal would wait for them.
    """
    with concurrent.futures.ThreadPoolExecutor(_processors(), "compile") as pool:

        def start(lowered: Any) -> concurrent.futures.Future[Compiled]:
            return pool.submit(_compile, lowered, cpu_options)

        is_cpu = jax.default_backend() == "cpu"
        if not is_cpu or not has_repeats(pieces := cut(traced.jaxpr.jaxpr)):
            with _timed(stages, "lower"):
                lowered = traced.lower()
            with _timed(stages, "compile"):
                return start(lowered).result()
        with _timed(stages, "lower"):
            sections, results = make_sections(traced, pieces)
            pending: dict[str, concurrent.futures.Future[Compiled]] = {}
            chosen = []
            for section in sections:
                lowered = section.lower()
                text = lowered.as_text()
                if text not in pending:
                    pending[text] = start(lowered)
                chosen.append(pending[text])
        with _timed(stages, "compile"):
            compiled = [future.result() for future in chosen]
        return make_chain(traced, sections, results, compiled)


def _compile(lowered: Any, cpu_options: Mapping[str, Any]) -> Compiled:
    """Compile; the options hold on a CPU, if this version of XLA knows them."""
    if jax.default_backend() != "cpu":
        return lowered.compile()
    if not _keeps_names():
        _remove_names(lowered.compiler_ir())
    try:
        return lowered.compile(dict(cpu_options))
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return lowered.compile()


def _keeps_names() -> bool:
    """Return whether operations shall have names, for a profile of a CPU program."""
    return os.environ.get("ADARTS_OPERATION_NAMES", "0") != "0"


def _remove_names(module: Any) -> None:
    """Drop where operations come from: a third of what a kept program takes to read."""
    with module.context:
        strip = passmanager.PassManager.parse("builtin.module(strip-debuginfo)")
        strip.run(module.operation)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
