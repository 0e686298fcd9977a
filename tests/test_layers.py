"""Layers against plain formulas: convolutions, pooling, batch norm, initialisation."""

import functools
import itertools
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import assert_near, draw

from adarts_jax.nn import layers, pixel_matrix, pooling
from adarts_jax.nn.batch_norm import BatchNorm, moments_in_one_pass
from adarts_jax.nn.depthwise import (
    Lowering,
    depthwise_conv,
    weight_gradients_if,
)
from adarts_jax.nn.mixed_norm import NormalizedSum
from adarts_jax.nn.waiting import wait_for

LOWERINGS: tuple[Lowering, ...] = get_args(Lowering)


def value_and_vjp(apply, cotangent, *inputs):
    """Compile ``apply`` and its gradient: value, gradient towards every input."""

    @jax.jit
    def run(*inputs):
        y, backward = jax.vjp(apply, *inputs)
        return y, backward(cotangent)

    return run(*inputs)


# sizes of the stack, op axis of the input, (batch, height, width, channels)
STACKS = [
    ((3,), 1, (2, 8, 8, 3)),
    ((3, 5), 1, (3, 7, 6, 4)),
    ((5, 3, 7), 3, (12, 9, 5, 2)),
    ((3, 5), 2, (1, 5, 7, 50)),
]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("sizes", "ops", "shape"), STACKS)
def test_depthwise_lowerings_agree(sizes, ops, shape, stride, dilation):
    batch, *image, channels = shape
    x = draw(0, ops, *shape)
    kernels = tuple(draw(k, k, k, channels) for k in sizes)
    height, width = (-(-side // stride) for side in image)
    cotangent = draw(1, len(sizes), batch, height, width, channels)
    results = [
        value_and_vjp(
            functools.partial(
                depthwise_conv, stride=stride, dilation=dilation, lowering=lowering
            ),
            cotangent,
            x,
            kernels,
        )
        for lowering in LOWERINGS
    ]
    for others in results[1:]:
        jax.tree.map(assert_near, others, results[0])


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_depthwise_keeps_the_type_of_the_images(lowering):
    x, kernels = draw(0, 1, 2, 4, 4, 3), (draw(1, 3, 3, 3), draw(2, 5, 5, 3))
    convolve = functools.partial(depthwise_conv, kernels=kernels, lowering=lowering)
    y = convolve(x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert_near(y.astype(jnp.float32), convolve(x), 0.02)


def num_operations(function, x, *arguments):
    """Count what is left to compile of a function and its gradient."""

    def loss(*inputs):
        return jnp.tanh(function(*inputs)).sum()

    lowered = jax.jit(jax.grad(loss)).lower(x, *arguments)
    return lowered.compile().as_text().count(" = ")


def test_small_images_take_few_operations():
    kernels = (draw(1, 3, 3, 4), draw(2, 5, 5, 4))
    functions = {
        "depthwise": lambda x, **how: depthwise_conv(x, kernels, **how),
        "mean": functools.partial(pooling.avg_pool, sizes=(3, 5), stride=1),
    }
    small, large = draw(0, 1, 32, 8, 8, 4), draw(0, 1, 32, 16, 16, 4)
    assert pixel_matrix.is_best(small, 1)
    assert not pixel_matrix.is_best(large, 1)
    many = draw(0, 1, 64, 8, 8, 16)
    assert not pixel_matrix.is_best(many, 1)
    assert pixel_matrix.is_best(many, 2)
    for function in functions.values():
        shifted = num_operations(functools.partial(function, lowering="shifted"), small)
        assert num_operations(function, small) < shifted / 3
        assert num_operations(function, large) > shifted / 2


def test_no_library_is_asked_for_a_dilated_convolution():
    """XLA has no fast gradient of those; they are plain ones of the image's phases."""
    x, kernel = draw(0, 1, 2, 8, 8, 3), draw(1, 3, 3, 3)

    def loss(x, kernel, stride):
        y = depthwise_conv(x, (kernel,), stride=stride, dilation=2, lowering="grouped")
        return jnp.sum(y**2)

    for stride in (1, 2):
        gradient = jax.grad(functools.partial(loss, stride=stride), argnums=(0, 1))
        calls = [
            equation.params
            for equation in jax.make_jaxpr(gradient)(x, kernel).eqns
            if equation.primitive.name == "conv_general_dilated"
        ]
        assert len(calls) == 3  # forward, towards the images, towards the kernel
        for name in ("window_strides", "lhs_dilation", "rhs_dilation"):
            assert all(call[name] == (1, 1) for call in calls)


def test_unwanted_weight_gradients_are_zero_and_nothing_else_changes():
    x, kernels = draw(0, 1, 6, 5, 5, 2), (draw(1, 3, 3, 2), draw(2, 5, 5, 2))
    cotangent = draw(3, 2, 6, 5, 5, 2)
    convolve = functools.partial(depthwise_conv, lowering="shifted")

    @jax.jit
    def run(wanted):
        with weight_gradients_if(wanted):
            y, backward = jax.vjp(convolve, x, kernels)
        return y, backward(cotangent)

    y, (dx, dkernels) = run(jnp.array(True))
    other_y, (other_dx, zeros) = run(jnp.array(False))
    assert run._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]
    jax.tree.map(np.testing.assert_array_equal, (y, dx), (other_y, other_dx))
    assert all(np.abs(d).min() > 0 for d in dkernels)
    assert not any(np.any(d) for d in zeros)


def test_layers_keep_one_image_each_for_their_backward_pass():
    """And no padded copies of it, which the backward pass makes when it gets there."""
    image = jax.ShapeDtypeStruct((1, 8, 16, 16, 8), jnp.float32)

    def temporary(num_layers):
        kernels = [jax.ShapeDtypeStruct((5, 5, 8), jnp.float32)] * num_layers

        def loss(kernels, x):
            for kernel in kernels:
                x = jnp.tanh(depthwise_conv(x, (kernel,), lowering="shifted"))
            return x.sum()

        compiled = jax.jit(jax.grad(loss)).lower(kernels, image).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    one_image = 4 * image.size
    assert temporary(8) - temporary(4) <= 4 * 3 * one_image  # 5.7 with the copies


@pytest.mark.parametrize("first", [1.0, np.nan, np.inf])
def test_waiting_changes_nothing_but_passes_on_what_is_no_number(first):
    x, g = draw(0, 2, 3), draw(1, 4, 2).at[0, 0].set(first)
    y = wait_for(g, x)
    np.testing.assert_array_equal(y, x if first == first else jnp.full((2, 3), first))


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_towards_kernels_have_derivatives_of_both_modes(stride):
    x, kernel, tangent = draw(0, 1, 4, 6, 6, 2), draw(1, 3, 3, 2), draw(2, 3, 3, 2)

    def along(lowering, x, kernel):
        """Directional derivative of a loss, from its gradient towards the kernel."""

        def loss(kernel):
            y = depthwise_conv(x, (kernel,), stride=stride, lowering=lowering)
            return jnp.tanh(y).sum()

        return jnp.vdot(jax.grad(loss)(kernel), tangent)

    for lowering in LOWERINGS:
        assert_near(*values_of(functools.partial(along, lowering), x, kernel))
    first, *others = (
        jax.grad(functools.partial(along, lowering), argnums=1)(x, kernel)
        for lowering in LOWERINGS
    )
    for other in others:
        assert_near(other, first)


def values_of(function, x, kernel):
    """Return one derivative in both modes: towards ``x``, along ``x`` itself."""
    backward = jnp.vdot(jax.grad(function)(x, kernel), x)
    _, forward = jax.jvp(lambda x: function(x, kernel), (x,), (x,))
    return backward, forward


def test_depthwise_by_hand():
    x = jnp.arange(9.0).reshape(1, 1, 3, 3, 1)
    kernel = jnp.zeros((3, 3, 1)).at[0, 1].set(1.0).at[2, 2].set(10.0)
    for lowering in LOWERINGS:
        y = depthwise_conv(x, (kernel,), lowering=lowering)[0, 0, :, :, 0]
        # the pixel above, and ten times the one below to the right
        assert y.tolist() == [[40, 50, 0], [70, 81, 2], [3, 4, 5]]


def windows_of(image, size, stride):
    """Yield output position and the pixels of its window, row by row."""
    rows, columns = image.shape
    for i, j in itertools.product(range(0, rows, stride), range(0, columns, stride)):
        pixels = itertools.product(
            range(i - size // 2, i + size // 2 + 1),
            range(j - size // 2, j + size // 2 + 1),
        )
        inside = [(a, b) for a, b in pixels if 0 <= a < rows and 0 <= b < columns]
        yield (i // stride, j // stride), inside


def naive_pool(image, cotangent, size, stride, kind):
    """Value and gradient of one channel by loops; the first maximum takes it all."""
    value, gradient = np.zeros_like(cotangent), np.zeros_like(image)
    for place, pixels in windows_of(image, size, stride):
        values = [image[pixel] for pixel in pixels]
        if kind == "max":
            best = int(np.argmax(values))
            value[place] = values[best]
            gradient[pixels[best]] += cotangent[place]
        else:
            value[place] = sum(values) / len(values)
            for pixel in pixels:
                gradient[pixel] += cotangent[place] / len(pixels)
    return value, gradient


POOLS = {("max", "only"): pooling.max_pool} | {
    ("avg", lowering): functools.partial(pooling.avg_pool, lowering=lowering)
    for lowering in get_args(pooling.MeanLowering)
}


@pytest.mark.parametrize(("kind", "lowering"), POOLS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(6, 5), (9, 8)])
@pytest.mark.parametrize("sizes", [(3,), (3, 5)])
def test_pooling_against_loops(kind, lowering, stride, shape, sizes):
    random = np.random.RandomState(3)
    # few different values, all negative: many ties, and padding must not win
    images = random.randint(-4, 0, (*shape, 3)).astype(np.float32)
    out = tuple(-(-side // stride) for side in shape)
    cotangent = random.standard_normal((len(sizes), *out, 3)).astype(np.float32)
    pool = POOLS[kind, lowering]
    value, (gradient,) = value_and_vjp(
        lambda x: pool(x, sizes=sizes, stride=stride),
        jnp.asarray(cotangent)[:, None],
        jnp.asarray(images)[None, None],
    )
    wanted = np.zeros_like(images)
    for (op, size), c in itertools.product(enumerate(sizes), range(3)):
        want, share = naive_pool(
            images[..., c], cotangent[op, ..., c], size, stride, kind
        )
        np.testing.assert_allclose(value[op, 0, ..., c], want, rtol=1e-6)
        wanted[..., c] += share
    np.testing.assert_allclose(gradient[0, 0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 6), (5, 7)])
def test_2x2_pooling_against_loops(shape):
    random = np.random.RandomState(4)
    image = random.randint(0, 3, shape).astype(np.float32)
    out = (shape[0] // 2, shape[1] // 2)
    cotangent = random.standard_normal(out).astype(np.float32)
    value, (gradient,) = value_and_vjp(
        pooling.max_pool_2x2,
        jnp.asarray(cotangent)[None, :, :, None],
        jnp.asarray(image)[None, :, :, None],
    )
    want, share = np.zeros(out), np.zeros(shape)
    for i, j in itertools.product(*map(range, out)):
        block = image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        a, b = np.unravel_index(block.argmax(), (2, 2))
        want[i, j] = block.max()
        share[2 * i + a, 2 * j + b] = cotangent[i, j]
    np.testing.assert_array_equal(value[0, :, :, 0], want)
    np.testing.assert_allclose(gradient[0, :, :, 0], share, rtol=1e-6)


def make_batch_norm(**options: Any) -> Any:
    return BatchNorm(**options)


def plain_batch_norm(x, scale, bias, axes):
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return scale * (x - mean) / jnp.sqrt(var + 1e-5) + bias


@pytest.mark.parametrize("stack", [(), (2,)])
def test_batch_norm_against_the_formula(stack):
    shape, last = (*stack, 3, 5, 4, 6), (*stack, 1, 1, 1, 6)
    x = 2 * draw(0, *shape) + 3 * draw(1, *last)
    scale, bias = 1 + 0.3 * draw(2, *stack, 6), draw(3, *stack, 6)
    module = make_batch_norm()
    cotangent = draw(4, *shape)
    variables = module.init(jax.random.key(0), x, train=False)

    def ours(x, scale, bias):
        params = {"scale": scale, "bias": bias}
        return module.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )[0]

    def plain(x, scale, bias):
        wide = scale.reshape(last), bias.reshape(last)
        return plain_batch_norm(x, *wide, (-4, -3, -2))

    results = [value_and_vjp(f, cotangent, x, scale, bias) for f in (ours, plain)]
    jax.tree.map(lambda got, want: assert_near(got, want, 2e-5), *results)


def test_running_statistics_follow_torch():
    torch = pytest.importorskip("torch")
    reference, module = torch.nn.BatchNorm2d(4), make_batch_norm()
    variables = module.init(jax.random.key(0), draw(0, 2, 3, 3, 4), train=False)
    for seed in (1, 2):  # few values, so that biased and unbiased differ
        x = 1.5 * draw(seed, 2, 3, 3, 4) + 1
        reference(torch.from_numpy(np.array(x).transpose(0, 3, 1, 2)))
        _, updates = module.apply(variables, x, train=True, mutable=["batch_stats"])
        variables = {**variables, **updates}
    statistics = variables["batch_stats"]
    assert reference.running_mean is not None
    assert reference.running_var is not None
    np.testing.assert_allclose(statistics["mean"], reference.running_mean, rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], reference.running_var, rtol=1e-5)
    want = reference.eval()(torch.from_numpy(np.array(x).transpose(0, 3, 1, 2)))
    got = module.apply(variables, x, train=False)
    np.testing.assert_allclose(
        got, want.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_variance_is_as_exact_as_in_two_passes(offset):
    """A channel far from zero keeps the digits that its deviation needs."""
    x = draw(0, 4, 8, 8, 5) + offset
    module = make_batch_norm(affine=False, momentum=0.0)
    variables = module.init(jax.random.key(0), x, train=False)
    _, updates = module.apply(variables, x, train=True, mutable=["batch_stats"])
    want = np.var(np.asarray(x, np.float64), (0, 1, 2), ddof=1)
    np.testing.assert_allclose(updates["batch_stats"]["var"], want, rtol=2e-6)


@pytest.mark.parametrize(
    ("offset", "first", "error"),
    [
        (0.0, 0.0, 5e-6),
        (10.0, 10.0, 5e-6),
        (1e3, 1e3, 5e-6),
        (0.0, 1e3, 16 * 256 * 6e-8),
    ],
)
def test_moments_in_one_pass_keep_their_digits(offset, first, error):
    """Far from zero, and, as well as promised, if the first pixel is far from all."""
    noise = draw(0, 2, 4, 8, 8, 5)
    x = (noise + offset).at[:, 0, 0, 0].set(noise[:, 0, 0, 0] + first)
    exact = np.asarray(x, np.float64)
    mean, var = jax.jit(moments_in_one_pass)(x)
    rounding = 1e-6 * max(1, first)
    np.testing.assert_allclose(mean, exact.mean((1, 2, 3)), rtol=1e-6, atol=rounding)
    np.testing.assert_allclose(var, exact.var((1, 2, 3)), rtol=error)


def test_moments_of_a_constant_in_one_pass():
    mean, var = moments_in_one_pass(jnp.full((2, 3, 3, 1), 0.1))
    assert (float(mean[0]), float(var[0])) == (pytest.approx(0.1), 0.0)


def test_normalization_is_the_same_in_one_pass(monkeypatch):
    x, cotangent = draw(0, 4, 8, 8, 5) + 3, draw(1, 4, 8, 8, 5)
    module: Any = make_batch_norm(affine=False)
    variables = module.init(jax.random.key(0), x, train=False)

    def normalized(x):
        return module.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    two = value_and_vjp(normalized, cotangent, x)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()  # functions inside are compiled by shape
    one = value_and_vjp(lambda x: normalized(x), cotangent, x)
    jax.clear_caches()
    jax.tree.map(assert_near, one, two)


def test_normalized_sum_is_a_weighted_sum_of_batch_norms():
    parts = (draw(0, 2, 3, 4, 4, 5) + 1, 3 * draw(1, 1, 3, 4, 4, 5))
    weights, cotangent = draw(2, 3, 5), draw(3, 3, 4, 4, 5)
    module: Any = NormalizedSum()
    variables = module.init(jax.random.key(0), parts, weights, train=False)

    def ours(parts, weights):
        return module.apply(
            variables, parts, weights, train=True, mutable=["batch_stats"]
        )[0]

    def plain(parts, weights):
        outputs = jnp.concatenate(parts)
        scale = weights[:, None, None, None]
        return plain_batch_norm(outputs, scale, 0.0, (1, 2, 3)).sum(0)

    results = [value_and_vjp(f, cotangent, parts, weights) for f in (ours, plain)]
    jax.tree.map(lambda got, want: assert_near(got, want, 2e-5), *results)

    _, updates = module.apply(
        variables, parts, weights, train=True, mutable=["batch_stats"]
    )
    outputs = np.concatenate(parts)
    want = 0.9 + 0.1 * outputs.var((1, 2, 3), ddof=1)
    np.testing.assert_allclose(updates["batch_stats"]["var"], want, rtol=1e-5)
    evaluated = module.apply({**variables, **updates}, parts, weights, train=False)
    statistics = {k: np.array(v) for k, v in updates["batch_stats"].items()}
    mean, var = (statistics[k][:, None, None, None] for k in ("mean", "var"))
    want = (outputs - mean) / np.sqrt(var + 1e-5)
    want = (want * np.asarray(weights)[:, None, None, None]).sum(0)
    np.testing.assert_allclose(evaluated, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ops", [1, 3])
def test_pointwise_ways_agree(ops, monkeypatch):
    x, kernel = draw(0, ops, 2, 3, 3, 4 * 5), draw(1, ops, 4, 5, 6)
    cotangent = draw(2, ops, 2, 3, 3, 4 * 6)
    results = []
    for largest in (0, 10**6):  # never block-diagonal, always
        monkeypatch.setattr(layers, "BLOCK_DIAGONAL_CHANNELS", largest)
        results.append(value_and_vjp(layers.pointwise, cotangent, x, kernel))
    jax.tree.map(assert_near, *results)
    edges = np.split(np.asarray(x), 4, axis=-1)
    want = [
        np.einsum("obhwi,oij->obhwj", edge, kernel[:, e])
        for e, edge in enumerate(edges)
    ]
    assert_near(results[0][0], np.concatenate(want, axis=-1))


def test_layers_are_initialised_like_torch():
    x = jnp.zeros((1, 2, 8, 8, 24))
    module: Any = layers.SeparableConv((3, 5), 24, num_edges=2)
    params = module.init(jax.random.key(0), x, train=False)["params"]
    fan_in = {"kernel_3x3": 9, "kernel_5x5": 25, "kernel": 12}
    for layer in ("depthwise_0", "pointwise_0", "depthwise_1", "pointwise_1"):
        for name, kernel in params[layer].items():
            bound = fan_in[name] ** -0.5
            assert 0.95 * bound < np.abs(kernel).max() <= bound
