"""What compiling ahead leaves in memory, and what it does not."""

import gc

import jax
import jax.numpy as jnp
import pytest

from adarts_jax.engine import compilation

X = jax.ShapeDtypeStruct((3,), jnp.float32)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch):
    monkeypatch.setattr(compilation, "_name", lambda *_: None)


def double(x):
    return jnp.sin(x) * 2


@pytest.mark.parametrize(
    "compile_it", [compilation.compile_ahead, compilation.compile_quickly]
)
def test_a_program_that_nobody_holds_is_gone(compile_it):
    x, before = jnp.zeros(3), num_programs()
    program = compile_it(double, X)
    assert program.call(x).tolist() == [0, 0, 0]
    assert num_programs() == before + 1
    del program  # `double` still lives
    assert num_programs() == before


def num_programs():
    gc.collect()
    return len(jax.devices()[0].client.live_executables())


def test_programs_have_the_name_of_their_function():
    for function in (double, jax.tree_util.Partial(double)):
        program = compilation.compile_ahead(function, X)
        assert "jit_double" in program.call.as_text()


def test_operations_have_names_only_if_asked_for(monkeypatch):
    monkeypatch.delenv("ADARTS_OPERATION_NAMES", raising=False)
    assert "op_name" not in compilation.compile_ahead(double, X).call.as_text()
    monkeypatch.setenv("ADARTS_OPERATION_NAMES", "1")
    # Another function, since JAX's cache does not look at names.
    program = compilation.compile_ahead(lambda x: jnp.cos(x) * 2, X)
    assert "op_name" in program.call.as_text()
