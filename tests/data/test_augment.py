import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarts_jax.data import augment

MEAN, STD = augment.CIFAR10_MEAN, augment.CIFAR10_STD
CIFAR = functools.partial(
    augment.augment, pad=4, flip=True, cutout_size=8, mean=MEAN, std=STD
)


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "E_misc.npz")


@pytest.fixture(scope="module")
def images():
    values = np.random.RandomState(0).randint(0, 256, (6, 12, 10, 3), dtype=np.uint8)
    return jnp.asarray(values)


def test_crop_and_mirror_golden(golden):
    images = golden["normalize/uint8_nhwc"][golden["crop_flip/source_image"]]
    windows = augment.crop(
        jnp.asarray(images), jnp.asarray(golden["crop_flip/top_left"]), pad=4
    )
    mirrored = augment.mirror(windows, jnp.asarray(golden["crop_flip/flipped"] == 1))
    assert mirrored.dtype == jnp.uint8
    np.testing.assert_array_equal(mirrored, golden["crop_flip/out_nhwc"])


def test_normalize_golden(golden):
    images = jnp.asarray(golden["normalize/uint8_nhwc"])
    assert tuple(golden["normalize/mean"]) == MEAN
    assert tuple(golden["normalize/std"]) == STD
    for group in ("normalize", "normalize_att_cifar100"):
        mean, std = (tuple(golden[f"{group}/{name}"]) for name in ("mean", "std"))
        expected = golden[f"{group}/out_nchw"].transpose(0, 2, 3, 1)
        ours = augment.normalize(images, mean, std)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_cutout_golden(golden):
    table = golden["cutout/length_y_x"]
    for size in np.unique(table[:, 0]):
        rows = table[:, 0] == size
        ones = jnp.ones((int(rows.sum()), 32, 32, 1))
        mask = augment.cutout(ones, jnp.asarray(table[rows, 1:]), size=int(size))
        np.testing.assert_array_equal(mask[..., 0], golden["cutout/mask"][rows])


def test_offset_pad_returns_the_original(images):
    offsets = jnp.full((6, 2), 3)
    np.testing.assert_array_equal(augment.crop(images, offsets, pad=3), images)
    moved = augment.crop(images, offsets.at[:, 1].set(1), pad=3)
    np.testing.assert_array_equal(moved[:, :, 2:], images[:, :, :-2])
    assert not moved[:, :, :2].any()


def test_mirror_twice_is_identity(images):
    chosen = jnp.arange(6) % 2 == 0
    once = augment.mirror(images, chosen)
    np.testing.assert_array_equal(once[1::2], images[1::2])
    assert (once[::2] != images[::2]).any()
    np.testing.assert_array_equal(augment.mirror(once, chosen), images)


def test_everything_off_is_normalize(images):
    off = augment.augment(
        jax.random.key(0), images, pad=0, flip=False, cutout_size=0, mean=MEAN, std=STD
    )
    np.testing.assert_array_equal(off, augment.normalize(images, MEAN, STD))


def test_augment_is_a_function_of_the_key(images):
    first = CIFAR(jax.random.key(1), images)
    assert first.shape == images.shape
    assert first.dtype == jnp.float32
    np.testing.assert_array_equal(first, CIFAR(jax.random.key(1), images))
    assert (first != CIFAR(jax.random.key(2), images)).any()


def test_images_of_a_batch_get_numbers_of_their_own(images):
    same = jnp.broadcast_to(images[:1], (32, *images.shape[1:]))
    assert len(np.unique(np.asarray(CIFAR(jax.random.key(0), same)), axis=0)) > 16


def test_jit_equals_eager_and_compiles_once(images):
    traces = []

    def counted(key, images):
        traces.append(1)
        return CIFAR(key, images)

    step = jax.jit(counted)
    for seed in range(3):
        key = jax.random.key(seed)
        np.testing.assert_allclose(
            step(key, images), CIFAR(key, images), rtol=0, atol=1e-6
        )
    assert len(traces) == 1


def test_black_padding_is_normalised_and_cutout_is_zero():
    white = jnp.full((64, 8, 8, 3), 255, jnp.uint8)
    out = np.asarray(
        augment.augment(
            jax.random.key(3),
            white,
            pad=4,
            flip=True,
            cutout_size=4,
            mean=MEAN,
            std=STD,
        )
    )
    black, bright = (np.asarray([v]) for v in (0, 255))
    levels = [np.zeros(3), *((v / 255 - np.array(MEAN)) / STD for v in (black, bright))]
    distance = [np.abs(out - level).max(-1) < 1e-5 for level in levels]
    assert np.logical_or.reduce(distance).all()
    assert all(found.any() for found in distance)


def test_cutout_reaches_every_pixel():
    white = jnp.full((400, 6, 8, 1), 255, jnp.uint8)
    out = augment.augment(
        jax.random.key(0), white, pad=0, flip=False, cutout_size=2, mean=(0,), std=(1,)
    )
    holes = (out == 0).mean(0)
    assert holes.min() > 0
    # The last row and column lie in fewer squares than the middle.
    assert holes[1:-1, 1:-1].min() > 0.03


def test_random_numbers_are_uniform():
    # A ramp over rows and columns makes every offset, flip and centre readable.
    ramp = np.zeros((4000, 8, 8, 1), np.uint8)
    ramp[..., 0] = 16 * np.arange(1, 9)[:, None] + np.arange(1, 9)
    shift = augment.augment(
        jax.random.key(0),
        jnp.asarray(ramp),
        pad=2,
        flip=True,
        cutout_size=0,
        mean=(0.0,),
        std=(1.0,),
    )
    centre = np.round(np.asarray(shift)[:, 4, 4, 0] * 255).astype(int)
    counts = np.bincount(centre)[np.unique(centre)]
    # 5 rows times 5 columns, mirrored or not: column 4 shows 5 + d, mirrored 4 + d.
    assert len(counts) == 5 * 6
    rows = np.bincount(centre // 16)[3:8]
    assert rows.min() > 4000 / 5 * 0.85


def test_channel_statistics_equal_the_plain_formula():
    values = np.random.RandomState(1).randint(0, 200, (700, 5, 4, 3), dtype=np.uint8)
    mean, std = augment.channel_statistics(values)
    np.testing.assert_allclose(mean, (values / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (values / 255).std((0, 1, 2)), rtol=1e-12)
    normalised = augment.normalize(jnp.asarray(values), mean, std)
    np.testing.assert_allclose(normalised.std((0, 1, 2)), 1, rtol=1e-4)


def test_constant_channel_stays_finite():
    grey = np.full((3, 4, 4, 1), 128, np.uint8)
    mean, std = augment.channel_statistics(grey)
    assert std == (1.0,)
    assert not augment.normalize(jnp.asarray(grey), mean, std).any()
