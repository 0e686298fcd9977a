"""A function in parts computes what it computes as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarts_jax.engine import compilation
from adarts_jax.engine.chain import Chain
from adarts_jax.engine.cut import cut, has_repeats
from adarts_jax.nn.boundary import boundary

WIDTH = 5


def cell(x, weight):
    x, weight = boundary((x, weight))
    for _ in range(4):
        x = jnp.tanh(x @ weight) + x
    return boundary(x)


def loss(weights, x):
    for weight in weights:
        x = cell(x / 2, weight)
    return (x**2).mean(), {"middle": x[0], "known": 3.0, "given": weights[0]}


def step(state, x):
    found, gradients = jax.value_and_grad(loss, has_aux=True)(state["weights"], x)
    weights = jax.tree.map(lambda w, g: w - 0.1 * g, state["weights"], gradients)
    return {"weights": weights, "count": state["count"] + 1}, found


def make_state(cells=3):
    keys = jax.random.split(jax.random.key(0), cells)
    weights = [jax.random.normal(key, (WIDTH, WIDTH)) / 3 for key in keys]
    return {"weights": weights, "count": jnp.int32(0)}


def whole(function, monkeypatch, *arguments):
    """Compile as ever, without parts."""
    with monkeypatch.context() as patch:
        patch.setattr(compilation, "has_repeats", lambda _: False)
        return compilation.compile_ahead(function, *arguments)


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(1), (4, WIDTH))


def check_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_parts_compute_what_the_whole_computes(x, monkeypatch):
    state = make_state()
    parts = compilation.compile_ahead(step, state, x)
    assert isinstance(parts.call, Chain)
    expected = whole(step, monkeypatch, state, x)
    assert not isinstance(expected.call, Chain)
    check_same(parts.call(state, x), expected.call(state, x))


def test_equal_cells_are_one_program(x):
    few = compilation.compile_ahead(step, make_state(3), x).call
    many = compilation.compile_ahead(step, make_state(6), x).call
    assert len(many.links) > len(few.links)
    # forward and backward of a cell, what lies between them, both ends, the update
    assert len(many.programs) == len(few.programs) < len(few.links)


def test_a_function_without_repeats_stays_whole(x):
    program = compilation.compile_ahead(step, make_state(1), x)
    assert not isinstance(program.call, Chain)


def test_on_accelerators_nothing_is_cut(x, monkeypatch):
    traced = jax.jit(step).trace(make_state(), x)
    assert has_repeats(cut(traced.jaxpr.jaxpr))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not isinstance(compilation._compile_traced(traced, {}, {}), Chain)


def test_a_state_given_away_makes_room(x, monkeypatch):
    state = make_state()
    expected = whole(step, monkeypatch, state, x).call(state, x)
    parts = compilation.compile_ahead(step, state, x, donate_argnums=(0,))
    check_same(parts.call(state, x), expected)
    assert all(weight.is_deleted() for weight in state["weights"][1:])
    assert not x.is_deleted()
    kept = compilation.compile_ahead(step, make_state(), x)
    assert parts.memory_bytes < kept.memory_bytes


def test_every_result_may_be_given_away(x):
    """Known ones, arguments, and one value that is returned twice."""

    def function(state, x):
        moved, _ = step(state["inner"], x)
        return {"inner": moved, "again": moved["weights"], "known": jnp.ones(3), "x": x}

    inner = make_state()
    state = {"inner": inner, "again": make_state()["weights"]}
    state |= {"known": jnp.zeros(3), "x": jnp.zeros_like(x)}
    call = compilation.compile_ahead(function, state, x, donate_argnums=(0,)).call
    assert isinstance(call, Chain)
    for _ in range(3):
        state = call(state, x)
    check_same(state["again"], state["inner"]["weights"])
    assert state["inner"]["count"] == 3
    assert state["known"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(state["x"], x)
    jax.tree.map(lambda leaf: leaf.delete(), state)
    assert not x.is_deleted()


def test_memory_and_cost_are_those_of_all_parts(x, monkeypatch):
    state = make_state()
    parts = compilation.compile_ahead(step, state, x)
    expected = whole(step, monkeypatch, state, x)
    theirs, ours = (p.call.memory_analysis() for p in (expected, parts))
    assert ours.argument_size_in_bytes == theirs.argument_size_in_bytes
    assert ours.temp_size_in_bytes >= 2 * x.nbytes
    assert parts.call.cost_analysis()["flops"] == pytest.approx(
        expected.call.cost_analysis()["flops"], rel=0.2
    )


def test_other_arguments_are_refused(x):
    call = compilation.compile_ahead(step, make_state(), x).call
    with pytest.raises(TypeError, match="compiled for"):
        call(make_state(2), x)
    with pytest.raises(TypeError):
        call(make_state(), x.astype(jnp.bfloat16))


def test_loops_and_batches_pass_through(x, monkeypatch):
    def looped(state, x):
        body = lambda _, state: step(state, x)[0]  # noqa: E731
        return jax.lax.fori_loop(0, 2, body, state)

    twice = compilation.compile_ahead(looped, make_state(), x).call
    assert not isinstance(twice, Chain)  # a boundary in a loop is no boundary
    once = jax.jit(step)
    check_same(twice(make_state(), x), once(once(make_state(), x)[0], x)[0])
    states = jax.tree.map(lambda *s: jnp.stack(s), make_state(), make_state())
    several = jax.vmap(step, (0, None))
    parts = compilation.compile_ahead(several, states, x)
    assert isinstance(parts.call, Chain)
    expected = whole(several, monkeypatch, states, x)
    check_same(parts.call(states, x), expected.call(states, x))


def test_a_boundary_is_the_identity_in_both_modes():
    values = (jnp.arange(3.0), jnp.ones((2, 2)))

    def f(values):
        return jax.tree.map(jnp.sin, boundary(values))

    def g(values):
        return jax.tree.map(jnp.sin, values)

    check_same(f(values), g(values))
    check_same(*(jax.jvp(h, (values,), (values,)) for h in (f, g)))
    check_same(*(jax.vjp(h, values)[1](values)[0] for h in (f, g)))
    # second derivatives, and a gradient towards one of two values
    check_same(
        *(jax.hessian(lambda x, h=h: h((x, x))[0].sum())(values[0]) for h in (f, g))
    )
    check_same(*(jax.grad(lambda v, h=h: h(v)[0].sum())(values) for h in (f, g)))
