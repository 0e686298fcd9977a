"""Gradient rules of our own against those that JAX derives from plain formulas."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import assert_near, draw

from adarts_jax.edges.mixed_op import MixedOp
from adarts_jax.nn import layers, pooling, weight_gradient, windows
from adarts_jax.nn.batch_norm import BatchNorm, normalize, normalize_and_rectify
from adarts_jax.nn.channel_attention import pool_state
from adarts_jax.nn.depthwise import depthwise_conv
from adarts_jax.nn.mixed_norm import normalized_sum
from adarts_jax.nn.relu import relu

TILES = {  # sums at once: images, rows, parts, bands of the tiling
    1000: (2, 6, 1, 1),
    80: (1, 6, 2, 1),
    24: (1, 3, 2, 2),
    1: (1, 1, 2, 6),
}


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("ops", [1, 3])
def test_tiles_add_up_to_the_gradient_of_every_kernel(
    monkeypatch, tile, stride, dilation, ops
):
    monkeypatch.setattr(weight_gradient, "TILE", tile)
    tiling = weight_gradient._tile((16, 6, 4, 2))
    assert tiling[1:] == TILES[tile]
    sizes, side = (3, 7, 5), (6 * stride, 4 * stride)
    x, g = draw(0, ops, 16, *side, 2), draw(1, len(sizes), 16, 6, 4, 2)
    kernels = tuple(draw(k, k, k, 2) for k in sizes)
    got = weight_gradient.weight_gradients(
        x, g, jnp.array(True), sizes, stride, dilation
    )
    convolve = functools.partial(
        depthwise_conv, x, stride=stride, dilation=dilation, lowering="grouped"
    )
    (want,) = jax.vjp(convolve, kernels)[1](g)
    jax.tree.map(assert_near, got, want)


def test_relu_has_the_gradient_of_jax():
    x = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0, -np.inf, np.inf])
    for function in (relu, jax.nn.relu):
        y, backward = jax.vjp(function, x)
        assert y.tolist() == [0, 0, 0, x[3], 3, 0, np.inf]
        assert backward(jnp.full(7, 5.0))[0].tolist() == [0, 0, 0, 5, 5, 0, 5]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_batch_norm_with_its_relu(affine, train):
    x, g = 2 * draw(0, 2, 5, 4, 3, 6) + 3, draw(1, 2, 5, 4, 3, 6)
    plain: Any = BatchNorm(affine)
    whole: Any = BatchNorm(affine, rectify=True)
    variables = plain.init(jax.random.key(0), x, train=False)
    if affine:
        params = {"scale": 1 + 0.3 * draw(2, 2, 6), "bias": draw(3, 2, 6)}
        variables = {**variables, "params": params}

    def run(module, after, x):
        y, updates = module.apply(variables, x, train=train, mutable=["batch_stats"])
        return after(y), updates

    ours, backward, updates = jax.vjp(
        functools.partial(run, whole, lambda y: y), x, has_aux=True
    )
    want, wanted, same = jax.vjp(
        functools.partial(run, plain, jax.nn.relu), x, has_aux=True
    )
    assert (ours == 0).any()
    np.testing.assert_array_equal(ours, want)
    jax.tree.map(np.testing.assert_array_equal, updates, same)
    assert_near(backward(g)[0], wanted(g)[0])


def test_weighted_sum_keeps_its_digits_far_from_zero():
    """Little is left of a sum of products of factors that both have large means."""
    shape, weights = (3, 64, 8, 8, 4), draw(0, 3, 4)
    x = draw(1, *shape) + 20
    g = draw(2, *shape[1:]) + 50

    def gradient(x, weights, g):
        _, backward = jax.vjp(
            lambda *a: normalized_sum((a[0],), a[1], 1e-5)[0], x, weights
        )
        return backward(g)

    exact, pixels = np.asarray(x, np.float64), (1, 2, 3)
    mean, var = (f(pixels, keepdims=True) for f in (exact.mean, exact.var))
    normalized = (exact - mean) / np.sqrt(var + 1e-5)
    want = (normalized * np.asarray(g, np.float64)).sum(pixels)
    assert_near(gradient(x, weights, g)[1], want, 2e-5)


def test_factorized_reduction_has_the_gradient_of_strided_slices():
    x, g = draw(0, 2, 3, 6, 8, 5), [draw(1, 2, 3, 3, 4, 5), draw(2, 2, 3, 3, 4, 5)]
    pixels, backward = jax.vjp(windows.diagonal_pixels, x)
    want, wanted = jax.vjp(lambda x: (x[..., ::2, ::2, :], x[..., 1::2, 1::2, :]), x)
    jax.tree.map(np.testing.assert_array_equal, pixels, want)
    np.testing.assert_array_equal(backward(tuple(g))[0], wanted(tuple(g))[0])


def test_no_slice_gets_into_the_products_of_a_factorized_reduction():
    """On a GPU, XLA ends the process over strided ones (openxla/xla#47381)."""
    module, x = layers.FactorizedReduce(4), draw(0, 1, 2, 8, 8, 4)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    equations = jax.make_jaxpr(module.apply)(variables, x).eqns
    makers = {id(out): each for each in equations for out in each.outvars}

    def source(variable):
        maker = makers.get(id(variable))
        if maker is not None and maker.primitive.name == "reshape":
            return source(maker.invars[0])
        return None if maker is None else maker.primitive.name

    products = [each for each in equations if each.primitive.name == "dot_general"]
    images = [source(each.invars[0]) for each in products]
    assert images == ["optimization_barrier"] * 2


@pytest.mark.parametrize("stride", [1, 2])
def test_families_of_a_mixed_operation_share_one_relu(stride):
    primitives = ("skip_connect", "sep_conv_3x3", "dil_conv_3x3", "max_pool_3x3")
    module, x = MixedOp(primitives, 1, stride), draw(0, 2, 8, 8, 4)
    weights = jnp.ones((1, len(primitives)))
    variables = module.init(jax.random.key(0), x, weights, train=False)
    jaxpr = jax.make_jaxpr(lambda x: module.apply(variables, x, weights, train=False))(
        x
    )
    rules = [each for each in jaxpr.eqns if each.primitive.name == "custom_vjp_call"]
    of_input = [
        each
        for each in rules
        if each.params["call_jaxpr"].eqns[0].primitive.name == "max"
    ]
    shapes = [each.invars[0].aval.shape for each in of_input]
    assert shapes.count((1, 2, 8, 8, 4)) == 1 + (stride == 1)  # and after batch norm


STACK = (1, 6, 8, 8, 2)
KERNELS = tuple(draw(k, k, k, 2) for k in (3, 5))
RULES = {
    "relu": (relu, STACK),
    "batch norm": (lambda x: normalize(x, jnp.ones((1, 2)), 1e-5)[0], STACK),
    "batch norm and relu": (lambda x: normalize_and_rectify(x, 1e-5)[0], STACK),
    "normalized sum": (
        lambda x: normalized_sum((x, jnp.sin(3 * x)), jnp.ones((2, 2)), 1e-5)[0],
        STACK,
    ),
    "diagonal pixels": (windows.diagonal_pixels, STACK),
    "2 x 2 maximum": (pooling.max_pool_2x2, STACK[1:]),
    "pooled state": (pool_state, STACK[1:]),
} | {
    f"{name}, stride {stride}": (functools.partial(function, stride=stride), STACK)
    for stride in (1, 2)
    for name, function in {
        "maximum": functools.partial(pooling.max_pool, sizes=(3, 5)),
        "mean": functools.partial(pooling.avg_pool, sizes=(3, 5), lowering="shifted"),
        "depthwise": lambda x, stride: depthwise_conv(
            x, KERNELS, stride=stride, lowering="shifted"
        ),
    }.items()
}


@pytest.mark.parametrize("rule", RULES)
def test_gradients_have_forward_derivatives(rule):
    """The exact second order takes them; a rule that calls itself has none."""
    function, shape = RULES[rule]

    @jax.grad
    def gradient(x):
        weigh = lambda y: (jnp.arange(y.size) % 7).reshape(y.shape)  # noqa: E731
        results = jax.tree.leaves(function(x))
        return sum((jnp.sin(y) * weigh(y)).sum() for y in results)

    x, v = draw(5, *shape), draw(6, *shape)
    _, got = jax.jvp(gradient, (x,), (v,))
    step = 1e-3
    assert_near(
        got, (gradient(x + step * v) - gradient(x - step * v)) / (2 * step), 0.01
    )
