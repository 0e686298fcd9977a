"""Promises of the derived network, on networks as small as they get."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError

from adarts_jax import UserError
from adarts_jax.networks.derived_cell import DerivedCell
from adarts_jax.networks.derived_network import (
    DerivedNetwork,
    derived_network,
    init_variables,
    variable_shapes,
)
from adarts_jax.networks.stem import choose_stem
from adarts_jax.nn.drop_path import draw_path_scales
from adarts_jax.space.cost import auxiliary_head_cost, derived_network_cost
from adarts_jax.space.genotype import Entry, Genotype
from adarts_jax.space.operations import OPERATIONS
from adarts_jax.space.published import PUBLISHED, RECORDS

# Two nodes, different concatenations, a skip that is never dropped.
TINY = Genotype(
    [("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_3x3", 2), ("none", 0)],
    [2, 3],
    [("max_pool_3x3", 0), ("skip_connect", 1), ("avg_pool_3x3", 2), ("none", 1)],
    [3],
)
NETWORK = DerivedNetwork(TINY, 4, 3, 5)


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def random_images(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(7), shape)


@functools.cache
def variables_of(network: DerivedNetwork, *image_shape: int):
    return init_variables(network, jax.random.key(0), image_shape)


@functools.partial(jax.jit, static_argnums=0)
def train_step(network, variables, images, rate, key):
    """Logits of both heads, new statistics and the gradient of a scalar."""

    def loss(params):
        outputs, updates = network.apply(
            variables | {"params": params},
            images,
            train=True,
            drop_path_rate=rate,
            mutable=["batch_stats"],
            rngs={"drop_path": key},
        )
        total = sum(jnp.sum(out**2) for out in outputs if out is not None)
        return total, (outputs, updates)

    gradients, kept = jax.grad(loss, has_aux=True)(variables["params"])
    return (*kept, gradients)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(network, variables, images):
    return network.apply(variables, images, train=False)


# --- sizes ------------------------------------------------------------------------


def test_parameters_of_the_published_networks():
    shapes = variable_shapes(DerivedNetwork(PUBLISHED["alpha_adarts"]), (32, 32, 3))
    assert count(shapes["params"]) == 3_285_838


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, r in RECORDS.items() if n != "att_darts"])
def test_parameters_of_every_published_network(name):
    record = RECORDS[name]
    counts = {10: record.cifar10_parameters, 100: record.cifar100_parameters}
    for classes, parameters in counts.items():
        if parameters is not None:
            network = DerivedNetwork(record.genotype, num_classes=classes)
            shapes = variable_shapes(network, (32, 32, 3))
            assert count(shapes["params"]) == parameters
    if record.imagenet_parameters is not None:
        network = DerivedNetwork(record.genotype, 48, 14, 1000, "imagenet")
        shapes = variable_shapes(network, (224, 224, 3))
        assert count(shapes["params"]) == record.imagenet_parameters


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "parameters"), [(10, 476_426), (100, 545_636)])
def test_parameters_of_the_auxiliary_head(classes, parameters):
    network = DerivedNetwork(
        PUBLISHED["alpha_adarts"], num_classes=classes, auxiliary=True
    )
    shapes = variable_shapes(network, (32, 32, 3))
    assert count(shapes["params"]["auxiliary"]) == parameters


def random_genotype(seed: int) -> Genotype:
    random = np.random.default_rng(seed)

    def cell(nodes):
        return [
            (OPERATIONS[random.integers(len(OPERATIONS))], int(random.integers(node)))
            for node in range(2, 2 + nodes)
            for _ in range(2)
        ]

    nodes = random.integers(1, 4, 2)
    concats = [
        random.permutation(range(2, 2 + n))[: random.integers(1, n + 1)].tolist()
        for n in nodes
    ]
    return Genotype(cell(nodes[0]), concats[0], cell(nodes[1]), concats[1])


@pytest.mark.parametrize(
    ("seed", "cells", "stem", "side"),
    [
        (0, 1, "cifar", 32),
        (1, 2, "cifar", 32),
        (2, 5, "cifar", 32),
        (3, 3, "imagenet", 224),
    ],
)
def test_any_genotype_has_the_parameters_of_its_cost(seed, cells, stem, side):
    genotype = random_genotype(seed)
    size = {"init_channels": 2 * (seed + 1), "num_cells": cells, "num_classes": 3}
    network = DerivedNetwork(genotype, **size, stem=stem, auxiliary=cells == 3)
    params = dict(variable_shapes(network, (side, side, 3))["params"])
    if cells == 3:
        head = auxiliary_head_cost(genotype, **size, stem=stem)
        assert count(params.pop("auxiliary")) == head.parameters
    cost = derived_network_cost(genotype, **size, stem=stem)
    assert count(params) == cost.parameters


def test_images_may_be_oblong_and_have_any_number_of_channels():
    network = DerivedNetwork(TINY, 4, 3, 5, auxiliary=True)
    images = jax.ShapeDtypeStruct((2, 48, 40, 2), jnp.float32)
    shapes = variable_shapes(network, (48, 40, 2))
    apply = functools.partial(network.apply, train=True, mutable=["batch_stats"])
    (logits, auxiliary), _ = jax.eval_shape(apply, shapes, images)
    assert logits.shape == auxiliary.shape == (2, 5)


# --- auxiliary head ---------------------------------------------------------------


def test_the_auxiliary_head_speaks_only_while_training():
    network = DerivedNetwork(TINY, 4, 3, 5, auxiliary=True)
    variables = variables_of(network, 32, 32, 3)
    images = random_images(2, 32, 32, 3)
    logits, auxiliary = evaluate(network, variables, images)
    assert logits.shape == (2, 5)
    assert auxiliary is None
    (logits, auxiliary), _, gradients = train_step(
        network, variables, images, 0.0, jax.random.key(0)
    )
    assert logits.shape == auxiliary.shape == (2, 5)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradients["auxiliary"]))


def test_evaluation_needs_no_large_image_for_the_auxiliary_head():
    network = DerivedNetwork(TINY, 4, 3, 5, auxiliary=True)
    variables = variable_shapes(network, (32, 32, 3))
    small = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    apply = functools.partial(network.apply, train=False)
    assert jax.eval_shape(apply, variables, small)[0].shape == (2, 5)


# --- drop path --------------------------------------------------------------------


def test_path_scales_are_zero_or_the_inverse_of_keep():
    scales = np.asarray(draw_path_scales(jax.random.key(0), 0.3, (2000,)))
    assert set(scales.round(5)) == {0.0, np.float32(1 / 0.7).round(5)}
    assert abs((scales == 0).mean() - 0.3) < 0.04


def test_only_what_is_not_an_identity_is_dropped():
    genotype = [Entry("skip_connect", 0), Entry("avg_pool_3x3", 1)]
    cell = DerivedCell(tuple(genotype), (2,), 2, train=True)
    s0, s1 = random_images(2, 2, 4, 4, 2)
    variables = cell.init(jax.random.key(0), s0, s1)

    def apply(scales):
        return cell.apply(variables, s0, s1, scales, mutable=["batch_stats"])[0]

    whole = apply(None)
    np.testing.assert_allclose(apply(jnp.ones((2, 2))), whole)
    first_dropped = apply(jnp.array([[0.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(first_dropped[1], whole[1])  # the other sample
    pool = whole - apply(jnp.zeros((2, 2)))
    np.testing.assert_allclose(first_dropped[0], (whole - pool)[0], atol=1e-6)
    assert np.abs(first_dropped[0]).max() > 0.1  # the identity survives
    assert np.abs(pool[0]).max() > 0.1  # and the pool was there


def test_a_skip_of_stride_two_is_dropped():
    genotype = (Entry("skip_connect", 0), Entry("skip_connect", 1))
    cell = DerivedCell(genotype, (2,), 2, reduction=True, train=True)
    s0, s1 = random_images(2, 2, 4, 4, 2)
    variables = cell.init(jax.random.key(0), s0, s1)
    scales = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    out, _ = cell.apply(variables, s0, s1, scales, mutable=["batch_stats"])
    assert np.abs(out[0]).max() > 0.1
    assert not np.any(out[1])


def test_drop_path_follows_key_and_rate():
    variables, images = variables_of(NETWORK, 8, 8, 3), random_images(8, 8, 8, 3)
    step = functools.partial(train_step, NETWORK, variables, images)
    apply = functools.partial(NETWORK.apply, train=True, mutable=["batch_stats"])
    (plain, _), _ = jax.jit(apply)(variables, images)
    programs = train_step._cache_size()
    (zero, _), *_ = step(0.0, jax.random.key(0))
    (half, _), *_ = step(0.5, jax.random.key(0))
    (again, _), *_ = step(0.5, jax.random.key(0))
    (other, _), *_ = step(0.5, jax.random.key(1))
    np.testing.assert_allclose(zero, plain, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(half, again)
    assert np.abs(half - zero).max() > 1e-2
    assert np.abs(half - other).max() > 1e-2
    assert train_step._cache_size() == programs + 1  # the rate is traced


def test_evaluation_drops_nothing_and_needs_no_randomness():
    variables, images = variables_of(NETWORK, 8, 8, 3), random_images(2, 8, 8, 3)
    plain, _ = evaluate(NETWORK, variables, images)
    apply = functools.partial(NETWORK.apply, train=False, drop_path_rate=0.9)
    np.testing.assert_array_equal(jax.jit(apply)(variables, images)[0], plain)


def test_drop_path_without_a_key_is_an_error():
    variables = variables_of(NETWORK, 8, 8, 3)
    with pytest.raises(InvalidRngError):
        NETWORK.apply(
            variables,
            random_images(2, 8, 8, 3),
            train=True,
            drop_path_rate=0.2,
            mutable=["batch_stats"],
        )


# --- backbone, bfloat16, rematerialisation ----------------------------------------


@pytest.mark.parametrize(
    ("stem", "cells", "strides"),
    [
        ("cifar", 3, {1: 8, 2: 8, 4: 16}),
        ("cifar", 1, {1: 12, 2: 8}),
        ("imagenet", 3, {4: 4, 8: 8, 16: 8, 32: 16}),
    ],
)
def test_features_are_the_last_map_of_every_resolution(stem, cells, strides):
    network = DerivedNetwork(TINY, 4, cells, 5, stem)
    shapes = variable_shapes(network, (64, 96, 3))
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    apply = functools.partial(network.apply, method="features")
    maps = jax.eval_shape(apply, shapes, images)
    wanted = {s: (2, 64 // s, 96 // s, width) for s, width in strides.items()}
    assert {stride: found.shape for stride, found in maps.items()} == wanted


def test_features_are_what_the_classifier_sees():
    variables, images = variables_of(NETWORK, 8, 8, 3), random_images(2, 8, 8, 3)
    apply = functools.partial(NETWORK.apply, method="features")
    maps = jax.jit(apply)(variables, images)
    linear = variables["params"]["classifier"]["linear"]
    logits = maps[4].mean((1, 2)) @ linear["kernel"] + linear["bias"][None]
    np.testing.assert_allclose(
        logits, evaluate(NETWORK, variables, images)[0], rtol=1e-5, atol=1e-6
    )


def test_bfloat16_computes_close_by_and_keeps_float32_state():
    half = DerivedNetwork(TINY, 4, 3, 5, auxiliary=True, dtype=jnp.bfloat16)
    single = DerivedNetwork(TINY, 4, 3, 5, auxiliary=True)
    variables = variables_of(half, 32, 32, 3)
    images = random_images(4, 32, 32, 3)
    step = functools.partial(
        train_step, variables=variables, images=images, rate=0.0, key=jax.random.key(0)
    )
    outputs, updates, gradients = step(half)
    wanted, wanted_updates, wanted_gradients = step(single)

    state = (variables, outputs, updates, gradients)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    for ours, theirs in zip(outputs, wanted, strict=True):
        error = np.abs(ours - theirs).max() / np.abs(theirs).max()
        assert 1e-5 < error < 0.1  # it did compute in bfloat16
    errors = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max() / (jnp.abs(b).max() + 1e-3)),
        (updates, gradients["classifier"]),
        (wanted_updates, wanted_gradients["classifier"]),
    )
    assert max(jax.tree.leaves(errors)) < 0.1
    maps = jax.eval_shape(
        functools.partial(half.apply, method="features"), variables, images
    )
    assert {found.dtype for found in maps.values()} == {jnp.dtype("bfloat16")}


def residual_bytes(network, variables, images) -> int:
    """What the backward pass of a training step keeps in memory."""

    def residuals(params, images):
        def logits(params):
            full = variables | {"params": params}
            return network.apply(full, images, train=True, mutable=["batch_stats"])[0]

        return jax.vjp(logits, params)[1]

    kept = jax.eval_shape(residuals, variables["params"], images)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def test_rematerialisation_changes_memory_only():
    again = DerivedNetwork(TINY, 4, 3, 5, remat=True)
    variables, images = variables_of(NETWORK, 8, 8, 3), random_images(4, 8, 8, 3)
    arguments = (variables, images, 0.3, jax.random.key(3))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        train_step(again, *arguments),
        train_step(NETWORK, *arguments),
    )
    many = jax.ShapeDtypeStruct((64, 8, 8, 3), jnp.float32)
    less, more = (residual_bytes(n, variables, many) for n in (again, NETWORK))
    assert less < more / 3


# --- what does not fit ------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (2, 2)}, "too small for 2 reductions"),
        ({"image_size": (32, 30)}, "cannot be halved 2 times"),
        ({"image_size": (224, 200)}, "cannot be halved 5 times"),
        ({"auxiliary": True, "image_size": (16, 16)}, "use images of at least 32x32"),
        (
            {"auxiliary": True, "image_size": (192, 192)},
            "at least 7x7 pixels after cell 2, but images of 192x192 leave 6x6",
        ),
        ({"num_cells": 0}, "num_cells=0 must be at least 1"),
        (
            {"init_channels": 3, "stem": "imagenet", "image_size": (32, 32)},
            "init_channels=3 must be even with the ImageNet stem; try 4",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(changes, message):
    options = {"genotype": TINY, "init_channels": 4, "num_cells": 3}
    options |= {"image_size": (32, 32)} | changes
    with pytest.raises(UserError, match=message) as caught:
        derived_network(**options)
    assert "\n" not in str(caught.value)


def test_the_network_itself_notices_images_that_do_not_fit():
    variables = variable_shapes(NETWORK, (8, 8, 3))
    images = jax.ShapeDtypeStruct((2, 10, 10, 3), jnp.float32)
    with pytest.raises(UserError, match="10x10"):
        jax.eval_shape(functools.partial(NETWORK.apply, train=False), variables, images)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1])
def test_a_drop_path_rate_out_of_range_is_refused(rate):
    variables = variables_of(NETWORK, 8, 8, 3)
    with pytest.raises(UserError, match="drop_path_rate"):
        NETWORK.apply(
            variables, random_images(2, 8, 8, 3), train=True, drop_path_rate=rate
        )


@pytest.mark.parametrize(
    ("stem", "size", "chosen"),
    [
        ("auto", (8, 8), "cifar"),
        ("auto", (64, 64), "cifar"),
        ("auto", (96, 128), "imagenet"),
        ("cifar", (224, 224), "cifar"),
        ("imagenet", (32, 32), "imagenet"),
    ],
)
def test_the_stem_follows_the_image_size(stem, size, chosen):
    assert choose_stem(stem, size) == chosen
    network = derived_network(
        TINY, image_size=size, init_channels=4, num_cells=3, stem=stem
    )
    assert network.stem == chosen
