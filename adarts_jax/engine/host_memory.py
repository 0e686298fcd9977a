"""How the C library treats freed memory: kept for the next step, given back otherwise.

On a CPU every call of a compiled program allocates its buffers anew. The C library
asks the system for each large one and returns it afterwards, and the system clears
every page again: a third to a half of a search step (docs/performance.md).
"""

import contextlib
import ctypes
import functools
import gc
from collections.abc import Iterator

import jax

# Names and values of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = -1


@functools.cache
def _c_library() -> ctypes.CDLL | None:
    """Return the C library if it is glibc; None for others, which need no advice."""
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    is_glibc = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    return library if is_glibc else None


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next allocation.

    For programs, before JAX starts its threads; it holds until the process ends. Memory
    in use does not grow by it as long as the large buffers are of the same size again
    and again. CPU programs then run in the thread that calls them, because the C
    library asks the system for every large buffer of any other thread.

    Returns:
      Whether the C library took the advice; False where there is no glibc.
    """
    library = _c_library()
    if library is None:
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", val=False)
    wishes = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER))
    return all(library.mallopt(name, value) for name, value in wishes)


@contextlib.contextmanager
def garbage_kept() -> Iterator[None]:
    """Collect no garbage inside; afterwards all of it, and give freed memory back.

    For compiling: tracing makes millions of objects that live until its end, looking
    for garbage among them costs a tenth of its time, and what it and the compiler leave
    are hundreds of MB.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        gc.collect()
        _give_back_freed_memory()


def _give_back_freed_memory() -> None:
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)
