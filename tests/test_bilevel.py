"""Optimizers with the semantics of PyTorch; the loss and its gradients."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from adarts_jax.architecture import ArchitectureParams
from adarts_jax.bilevel.gradients import cross_entropy, first_order
from adarts_jax.bilevel.optimizers import clip_by_norm, descend, make_optimizers
from adarts_jax.bilevel.schedules import cosine_learning_rate

SHAPES = ((3, 2), (4,))
STEPS = 6


def draw(seed: int) -> list[np.ndarray]:
    random = np.random.RandomState(seed)
    return [random.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def clip(largest: float | None, gradient: Any) -> Any:
    """Clip and forget the state."""
    return clip_by_norm(largest).update(gradient, optax.EmptyState())[0]


def walk(optimizer: Any, rates: list[float], scale: float) -> list[np.ndarray]:
    """Descend on drawn gradients."""
    params: Any = [jnp.asarray(leaf) for leaf in draw(0)]
    state = optimizer.init(params)
    for step, rate in enumerate(rates, start=1):
        gradient = [jnp.asarray(scale * leaf) for leaf in draw(step)]
        params, state = descend(optimizer, gradient, state, params, rate)
    return params


def walk_torch(make: Any, rates: list[float], scale: float, clip: float | None) -> Any:
    torch = pytest.importorskip("torch")
    params = [torch.tensor(leaf, requires_grad=True) for leaf in draw(0)]
    optimizer = make(torch, params)
    for step, rate in enumerate(rates, start=1):
        for param, leaf in zip(params, draw(step), strict=True):
            param.grad = torch.tensor(np.float32(scale) * leaf)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(params, clip)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return [param.detach().numpy() for param in params]


# gradients of norm about 3 (not clipped) and about 30 (clipped)
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_weights_descend_like_torch_sgd(scale):
    rates = [0.1 / step for step in range(1, STEPS + 1)]
    ours = walk(make_optimizers(weight_decay=0.05).weight, rates, scale)
    theirs = walk_torch(
        lambda torch, params: torch.optim.SGD(
            params, lr=1.0, momentum=0.9, weight_decay=0.05
        ),
        rates,
        scale,
        clip=5.0,
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_architecture_descends_like_torch_adam(clip):
    rates = [0.01] * STEPS
    optimizers = make_optimizers(
        architecture_weight_decay=0.1, architecture_gradient_clip=clip
    )
    ours = walk(optimizers.architecture, rates, 0.3)
    theirs = walk_torch(
        lambda torch, params: torch.optim.Adam(
            params, lr=1.0, betas=(0.5, 0.999), weight_decay=0.1
        ),
        rates,
        0.3,
        clip,
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_first_steps_by_hand():
    optimizers = make_optimizers(weight_decay=0.5, architecture_weight_decay=0.5)
    gradient, params = jnp.array([3.0, 40.0]), jnp.array([2.0, -4.0])
    # norm 40.11 is clipped to 5, then L2; momentum starts with the first gradient
    factor = 5.0 / (np.hypot(3.0, 40.0) + 1e-6)
    first = factor * np.array([3.0, 40.0]) + 0.5 * np.array([2.0, -4.0])
    state: Any = optimizers.weight.init(params)
    moved: Any
    moved, state = descend(optimizers.weight, gradient, state, params, 0.1)
    np.testing.assert_allclose(moved, np.array([2.0, -4.0]) - 0.1 * first, rtol=1e-6)
    second = factor * np.array([3.0, 40.0]) + 0.5 * np.asarray(moved) + 0.9 * first
    again, _ = descend(optimizers.weight, gradient, state, moved, 0.1)
    np.testing.assert_allclose(again, np.asarray(moved) - 0.1 * second, rtol=1e-6)
    # Adam's first step is the sign of gradient + L2, here of 4 and of -0.5
    gradient = jnp.array([3.0, 1.5])
    state = optimizers.architecture.init(params)
    moved, _ = descend(optimizers.architecture, gradient, state, params, 0.1)
    np.testing.assert_allclose(moved, [1.9, -3.9], rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.floats(1e-8, 1e4), st.floats(0.1, 10.0))
def test_clipping_is_that_of_torch(size, largest):
    gradient = [jnp.full((2,), size, jnp.float32), jnp.full((2, 1), -size, jnp.float32)]
    clipped = clip(largest, gradient)
    norm = 2 * np.float32(size)
    factor = min(1.0, largest / (norm + 1e-6))
    for got, before in zip(clipped, gradient, strict=True):
        np.testing.assert_allclose(got, factor * np.asarray(before), rtol=1e-5)


def test_clipping_adds_a_millionth_to_the_norm():
    np.testing.assert_allclose(clip(2e-6, jnp.array([3e-6])), [1.5e-6], rtol=1e-5)


def test_no_clipping_keeps_the_gradient():
    assert clip(None, jnp.array([1e6]))[0] == 1e6


def test_learning_rate_of_zero_moves_nothing_but_the_optimizer():
    optimizers, params = make_optimizers(), jnp.array([1.0, 2.0])
    state: Any = optimizers.weight.init(params)
    moved: Any
    moved, after = descend(optimizers.weight, jnp.ones(2), state, params, 0.0)
    assert jnp.array_equal(moved, params)
    assert any(leaf.any() for leaf in jax.tree.leaves(after))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 600), st.floats(1e-3, 1.0), st.floats(0.0, 1e-3))
def test_cosine_falls_from_base_to_minimum(epochs, base, minimum):
    rates = [
        cosine_learning_rate(epoch, base=base, minimum=minimum, epochs=epochs)
        for epoch in range(epochs + 1)
    ]
    assert rates[0] == pytest.approx(base)
    assert rates[-1] == pytest.approx(minimum)
    assert all(a >= b for a, b in itertools.pairwise(rates))
    shifted = cosine_learning_rate(0, base=base, epochs=epochs, shifted=True)
    assert shifted == cosine_learning_rate(1, base=base, epochs=epochs)


def test_cross_entropy_is_the_mean_over_the_batch():
    logits, labels = jnp.array([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), jnp.array([0, 2])
    first = np.log(np.exp([2.0, 0.0, 1.0]).sum()) - 2.0
    want = (first + np.log(3.0)) / 2
    assert cross_entropy(logits, labels) == pytest.approx(want, rel=1e-6)


class Scaled(nn.Module):
    """A linear classifier whose logits the architecture scales."""

    tied: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self, arch: ArchitectureParams, images: jax.Array, *, train: bool
    ) -> jax.Array:
        passes = self.variable("batch_stats", "passes", jnp.zeros, ())
        if train:
            passes.value += 1
        for count in self.tied:
            self.sow("intermediates", "tied_edges", jnp.array(count))
        kernel = self.param("kernel", nn.initializers.ones, (images.shape[-1], 3))
        return (images.mean((1, 2)) @ kernel) * arch.alpha_normal[0, 0]


@pytest.mark.parametrize("tied", [(), (2, 3)])
def test_first_order_differentiates_both_levels_at_once(tied):
    images = jnp.asarray(np.random.RandomState(0).rand(4, 2, 2, 5), jnp.float32)
    labels = jnp.array([0, 1, 2, 1])
    arch = ArchitectureParams(jnp.array([[1.5]]), jnp.array([[1.0]]))
    params = {"kernel": jnp.asarray(np.random.RandomState(1).rand(5, 3), jnp.float32)}
    statistics = {"passes": jnp.zeros(())}
    found = first_order(Scaled(tied), params, arch, statistics, (images, labels))

    pooled = np.asarray(images).mean((1, 2))
    raw = pooled @ np.asarray(params["kernel"])
    logits = 1.5 * raw
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    error = (shares - np.eye(3)[np.asarray(labels)]) / 4
    np.testing.assert_allclose(found.logits, logits, rtol=1e-5)
    np.testing.assert_allclose(
        found.params["kernel"], 1.5 * pooled.T @ error, rtol=1e-4
    )
    by_alpha = (error * raw).sum()
    np.testing.assert_allclose(found.arch.alpha_normal, [[by_alpha]], rtol=1e-4)
    assert found.arch.alpha_reduce == 0
    assert found.loss == pytest.approx(
        -np.log(shares[range(4), labels]).mean(), rel=1e-5
    )
    assert found.accuracy == (logits.argmax(-1) == np.asarray(labels)).mean()
    assert found.batch_stats["passes"] == 1
    assert found.tied_edges == sum(tied)
