"""CutMix: the box, the partners and the share against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarts_jax.data import cutmix
from adarts_jax.training.loss import mix_batch, smooth_targets

SHAPE = (4, 9, 12)  # batch, height, width


@pytest.fixture(scope="module")
def drawn():
    draw = jax.jit(
        jax.vmap(lambda key: cutmix.draw_mixture(key, shape=SHAPE, probability=0.6))
    )
    keys = jax.random.split(jax.random.key(0), 4000)
    return jax.device_get(draw(keys))


def test_a_box_is_pasted_from_the_partner():
    images = np.random.default_rng(0).normal(size=(*SHAPE, 2)).astype(np.float32)
    partners = np.array([2, 3, 1, 0])
    mixture = cutmix.Mixture(
        jnp.array([1, 4, 5, 12]), jnp.array(partners), jnp.float32(0)
    )
    wanted = images.copy()
    wanted[:, 1:4, 5:12] = images[partners][:, 1:4, 5:12]
    found = cutmix.paste(jnp.asarray(images), mixture)
    np.testing.assert_array_equal(found, wanted)


def test_share_is_what_the_box_leaves(drawn):
    top, bottom, left, right = drawn.box.T
    assert (top >= 0).all()
    assert (bottom <= 9).all()
    assert (left >= 0).all()
    assert (right <= 12).all()
    area = (bottom - top) * (right - left)
    np.testing.assert_allclose(drawn.share, 1 - area / (9 * 12), rtol=1e-6)


def test_one_permutation_per_batch(drawn):
    assert (np.sort(drawn.partners, axis=1) == np.arange(4)).all()
    assert len(np.unique(drawn.partners, axis=0)) == 24


def test_as_many_batches_are_mixed_as_wanted(drawn):
    # Boxes of less than two pixels are empty too: r * 9 < 2 for 4.9 % of all areas.
    mixed = (drawn.share < 1).mean()
    assert mixed == pytest.approx(0.6 * (1 - (2 / 9) ** 2), abs=0.03)


def test_boxes_follow_the_published_recipe(drawn):
    """Against the definition in methods.md 6.1, drawn by NumPy."""
    random = np.random.default_rng(1)
    ratio = np.sqrt(1 - random.beta(1, 1, 40_000))
    shares = np.ones(40_000)
    sides = []
    for length in (9, 12):
        reach = (length * ratio).astype(int) // 2
        centre = random.integers(0, length, 40_000)
        sides.append(
            np.clip(centre + reach, 0, length) - np.clip(centre - reach, 0, length)
        )
    shares = np.where(random.random(40_000) < 0.6, 1 - sides[0] * sides[1] / 108, 1)
    grid = np.linspace(0, 1, 21)
    ours, theirs = np.quantile(drawn.share, grid), np.quantile(shares, grid)
    np.testing.assert_allclose(ours, theirs, atol=0.03)
    assert drawn.share.mean() == pytest.approx(shares.mean(), abs=0.015)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_are_mixed_like_the_pixels(smoothing):
    key = jax.random.key(1)
    images = jnp.arange(4.0)[:, None, None, None] * jnp.ones((4, 9, 12, 1))
    labels = jnp.array([0, 1, 2, 2])
    mixed, targets = mix_batch(
        key,
        images,
        labels,
        num_classes=3,
        smoothing=smoothing,
        cutmix_probability=1.0,
    )
    plain = np.asarray(smooth_targets(labels, num_classes=3, smoothing=smoothing))
    pixels = np.asarray(mixed).reshape(4, -1)
    for image in range(4):
        wanted = np.mean([plain[int(pixel)] for pixel in pixels[image]], axis=0)
        np.testing.assert_allclose(targets[image], wanted, atol=1e-5)
    assert any(len(np.unique(image)) == 2 for image in pixels)  # this key does mix


def test_without_cutmix_nothing_is_drawn():
    images, labels = jnp.ones((2, 4, 4, 1)), jnp.array([0, 1])
    same, targets = mix_batch(jax.random.key(0), images, labels, num_classes=2)
    assert same is images
    np.testing.assert_array_equal(targets, np.eye(2))
