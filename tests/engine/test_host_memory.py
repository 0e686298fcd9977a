"""Memory of the C library: kept between steps, given back after compiling."""

import gc
import subprocess
import sys
import weakref

import pytest

from adarts_jax.engine import host_memory

if host_memory._c_library() is None:
    pytest.skip("no glibc here", allow_module_level=True)

PAGES = 20_000  # of 4 KiB in the buffer of the program below

# A program with a large buffer of its own; prints the page faults of a later call,
# the fewest of some: small allocations may take a piece of the buffer once.
PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from adarts_jax.engine import host_memory
if sys.argv[1] == "keep":
    assert host_memory.keep_freed_memory()
product = jax.jit(lambda x, w: (jnp.sin(x) @ w).sum())
x, w = jnp.ones((20_000, 1_000)), jnp.ones((1_000, 16))
for _ in range(3):
    jax.block_until_ready(product(x, w))
faults = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
for _ in range(5):
    jax.block_until_ready(product(x, w))
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(min(b - a for a, b in zip(faults, faults[1:])))
"""


def page_faults(mode):
    command = [sys.executable, "-c", PROGRAM, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_buffers_of_a_step_are_used_again():
    assert page_faults("keep") < PAGES / 10
    assert page_faults("leave") > PAGES / 2  # or the advice is not needed any more


class Knot:
    """An object that only the garbage collector frees."""

    def __init__(self):
        self.itself = self


def test_garbage_is_kept_for_a_while_and_then_collected():
    kept = bytearray(b"x" * 1_000_000)
    with host_memory.garbage_kept():
        assert not gc.isenabled()
        knot = weakref.ref(Knot())
        assert knot() is not None
    assert gc.isenabled()
    assert knot() is None
    assert kept == b"x" * 1_000_000


def test_who_collects_no_garbage_is_left_alone():
    gc.disable()
    try:
        with host_memory.garbage_kept():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(host_memory, "_c_library", lambda: None)
    assert not host_memory.keep_freed_memory()
    with host_memory.garbage_kept():
        pass
