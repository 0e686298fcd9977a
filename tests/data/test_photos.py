"""Random parts and colours of photographs against Pillow, colorsys and definitions."""

import colorsys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from adarts_jax.data import photos
from adarts_jax.data.augment import normalize

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def pixels():
    smooth = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    pictures = [Image.fromarray(image).resize((24, 24)) for image in smooth]
    return np.stack([np.asarray(picture) for picture in pictures])


def test_a_part_is_stretched_as_by_pillow(pixels):
    boxes = jnp.array([[4.0, 8, 12, 16], [0, 0, 24, 24]])
    found = np.asarray(photos.resized_crop(jnp.asarray(pixels), boxes, size=8))
    for image, part, box in zip(pixels, found, boxes, strict=True):
        top, left, height, width = map(int, box)
        cut = (left, top, left + width, top + height)
        wanted = Image.fromarray(image).resize((8, 8), Image.Resampling.BILINEAR, cut)
        close = np.abs(255 * part - np.asarray(wanted, float))[1:-1, 1:-1]
        assert close.max() < 1.5  # the borders see their neighbours


def test_parts_fit_and_have_the_areas_and_ratios_wanted():
    boxes = np.asarray(photos.draw_boxes(jax.random.key(0), 4000, 20, 24))
    top, left, height, width = boxes.T
    assert (boxes >= 0).all()
    assert (top + height <= 20 + 1e-4).all()
    assert (left + width <= 24 + 1e-4).all()
    area, ratio = height * width / 480, width / height
    # drawn by NumPy, and again where a part does not fit
    random = np.random.default_rng(0)
    areas, ratios = random.uniform(0.08, 1, 8000), np.exp(random.uniform(-1, 1, 8000))
    ratios **= np.log(4 / 3)
    fits = np.sqrt(areas * 480 / ratios) <= 20
    fits &= np.sqrt(areas * 480 * ratios) <= 24
    grid = np.linspace(0, 1, 11)
    for found, wanted in ((area, areas[fits]), (ratio, ratios[fits])):
        ours, theirs = np.quantile(found, grid), np.quantile(wanted, grid)
        np.testing.assert_allclose(ours, theirs, atol=0.03)


def test_hue_is_turned_as_in_hsv():
    colours = np.random.default_rng(1).random((1, 6, 6, 3)).astype(np.float32)
    for turn in (0.0, 0.15, -0.4, 1.0):
        found = photos.turn_hue(jnp.asarray(colours), jnp.full((1, 1, 1, 1), turn))
        for old, new in zip(colours.reshape(-1, 3), found.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*old.tolist())
            wanted = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            np.testing.assert_allclose(new, wanted, atol=1e-5)


@pytest.mark.parametrize("place", range(4))
def test_each_strength_changes_its_own_quantity(place):
    strength = tuple(0.4 if index == place else 0.0 for index in range(4))
    grey = jnp.full((8, 5, 5, 3), 0.5)
    colours = 0.3 + 0.4 * jax.random.uniform(jax.random.key(1), (8, 5, 5, 3))
    key = jax.random.key(2)
    changed_grey = photos.jitter_colours(key, grey, strength)
    changed = photos.jitter_colours(key, colours, strength)
    factors = np.asarray(changed_grey[:, 0, 0, 0] / 0.5)
    if place == 0:
        assert len(set(factors.round(4))) == 8
        assert (factors > 0.6 - 1e-5).all()
        assert (factors < 1.4 + 1e-5).all()
    else:
        np.testing.assert_allclose(factors, 1, atol=1e-5)
    assert np.abs(changed - colours).max(axis=(1, 2, 3)).min() > 1e-4
    if place == 2:  # saturation
        before, after = photos.luminance(colours), photos.luminance(changed)
        np.testing.assert_allclose(before, after, atol=1e-5)


def test_the_whole_transform_is_normalised_and_repeatable(pixels):
    def run(key, **changes):
        settings = {
            "crop_size": 12,
            "flip": True,
            "color_jitter": (0.4, 0.4, 0.4, 0.2),
            "cutout_size": 0,
            "mean": MEAN,
            "std": STD,
        }
        augment = partial(photos.augment_photos, **(settings | changes))
        return jax.jit(augment)(key, jnp.asarray(pixels))

    first, other = run(jax.random.key(0)), run(jax.random.key(1))
    assert first.shape == (2, 12, 12, 3)
    np.testing.assert_array_equal(first, run(jax.random.key(0)))
    assert (first != other).any()
    low, high = (
        normalize(jnp.full((1, 1, 1, 3), v, jnp.uint8), MEAN, STD) for v in (0, 255)
    )
    assert (first >= low - 1e-5).all()
    assert (first <= high + 1e-5).all()
    holes = run(jax.random.key(0), cutout_size=6) == 0
    assert holes.all(-1).any(axis=(1, 2)).all()
