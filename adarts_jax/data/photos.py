"""Augmentation of photographs on the device: random parts, colours.

Pure functions of a key and images, as in `augment`; pixels are floats in [0, 1] here.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from adarts_jax.data import augment

Images = UInt8[Array, "batch height width channel"]
Colours = Float[Array, "batch height width channel"]
Boxes = Float[Array, "batch 4"]

AREA = (0.08, 1.0)  # share of the image
RATIO = (3 / 4, 4 / 3)  # width by height
ATTEMPTS = 10

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601


def augment_photos(
    key: PRNGKeyArray,
    images: Images,
    *,
    crop_size: int,
    flip: bool,
    color_jitter: tuple[float, float, float, float],
    cutout_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Colours:
    """Augment and normalise a training batch, each image by numbers of its own.

    Random resized crop, horizontal flip for half of the images, colours, normalisation,
    cutout: what DARTS and PC-DARTS train with on ImageNet (methods.md 6.2).

    Args:
      key: random key of the step.
      images: raw pixels, 0 to 255.
      crop_size: side of the result, pixels. Static.
      flip: whether to mirror images. Static.
      color_jitter: largest change of brightness, contrast, saturation and hue. Static.
      cutout_size: side of the square set to 0, pixels; 0 for no cutout. Static.
      mean: per channel, pixels scaled to [0, 1].
      std: per channel, pixels scaled to [0, 1].

    Returns:
      Float32 images (batch, crop_size, crop_size, channel).
    """
    batch, height, width, _ = images.shape
    to_crop, to_flip, to_colour, to_cutout = jax.random.split(key, 4)
    boxes = draw_boxes(to_crop, batch, height, width)
    colours = resized_crop(images, boxes, size=crop_size)
    if flip:
        mirrored = jax.random.bernoulli(to_flip, 0.5, (batch, 1, 1, 1))
        colours = jnp.where(mirrored, colours[:, :, ::-1], colours)
    if any(color_jitter):
        colours = jitter_colours(to_colour, colours, color_jitter)
    normalised = augment.normalize_scaled(colours, mean, std)
    if cutout_size:
        centres = jax.random.randint(to_cutout, (batch, 2), 0, crop_size)
        normalised = augment.cutout(normalised, centres, size=cutout_size)
    return normalised


def draw_boxes(key: PRNGKeyArray, batch: int, height: int, width: int) -> Boxes:
    """Draw parts of images: top, left, height, width, in pixels.

    The first of ten draws of area (evenly) and ratio (evenly by its logarithm) that
    fits into the image; the whole image where none does.
    """
    to_area, to_ratio, to_place = jax.random.split(key, 3)
    shape = (batch, ATTEMPTS)
    low, high = AREA
    area = height * width * jax.random.uniform(to_area, shape, minval=low, maxval=high)
    low, high = np.log(RATIO[0]), np.log(RATIO[1])
    ratio = jnp.exp(jax.random.uniform(to_ratio, shape, minval=low, maxval=high))
    sides = jnp.stack([jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)], -1)
    whole = jnp.array([height, width], jnp.float32)
    fits = (sides <= whole[None, None]).all(-1)
    first = jnp.take_along_axis(sides, fits.argmax(1)[:, None, None], axis=1)[:, 0]
    sides = jnp.where(fits.any(1)[:, None], first, whole[None])
    place = jax.random.uniform(to_place, (batch, 2)) * (whole[None] - sides)
    return jnp.concatenate([place, sides], axis=1)


def resized_crop(images: Images, boxes: Boxes, *, size: int) -> Colours:
    """Stretch a part of every image to a square (bilinear, antialiased).

    Differs from torchvision: at the border of a part its neighbours in the image count
    too, and parts need not begin at whole pixels.

    Args:
      images: raw pixels.
      boxes: see ``draw_boxes``.
      size: side of the squares, pixels. Static.
    """

    def one(image: Array, box: Array) -> Array:
        scale = size / box[2:]
        shape = (size, size, image.shape[2])
        return jax.image.scale_and_translate(
            image, shape, (0, 1), scale, -box[:2] * scale, "linear"
        )

    return jax.vmap(one)(images.astype(jnp.float32) / 255, boxes)


def jitter_colours(
    key: PRNGKeyArray, images: Colours, strength: tuple[float, float, float, float]
) -> Colours:
    """Change brightness, contrast, saturation and hue, in this order.

    Differs from torchvision, which draws the order too.

    Args:
      key: randomness.
      images: RGB in [0, 1].
      strength: the factors are drawn from ``1 - s`` (at least 0) to ``1 + s``, the turn
        of the hue from ``-s`` to ``s``. Static.
    """
    low = jnp.array([max(0.0, 1 - s) for s in strength[:3]] + [-strength[3]])
    high = jnp.array([1 + s for s in strength[:3]] + [strength[3]])
    draws = jax.random.uniform(key, (len(images), 4))
    factors = low[None] + draws * (high - low)[None]
    brightness, contrast, saturation, turn = factors.T[:, :, None, None, None]
    images = jnp.clip(images * brightness, 0, 1)
    grey = luminance(images).mean((1, 2), keepdims=True)
    images = jnp.clip(grey + contrast * (images - grey), 0, 1)
    grey = luminance(images)
    images = jnp.clip(grey + saturation * (images - grey), 0, 1)
    return turn_hue(images, turn) if strength[3] else images


def luminance(images: Colours) -> Colours:
    """Return one channel of grey."""
    return (images * jnp.array(_LUMINANCE)[None, None, None]).sum(-1, keepdims=True)


def turn_hue(images: Colours, turn: Float[Array, "batch 1 1 1"]) -> Colours:
    """Turn the hue of RGB images; value and saturation (HSV) stay.

    Args:
      images: in [0, 1].
      turn: in turns; a third makes red green.
    """
    value = images.max(-1, keepdims=True)
    chroma = value - images.min(-1, keepdims=True)
    red, green, blue = jnp.split(images, 3, axis=-1)
    safe = jnp.where(chroma > 0, chroma, 1)
    sixths = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # Each channel is value - chroma * clip(...) of its distance to the hue.
    offsets = jnp.array([5.0, 3.0, 1.0])[None, None, None]
    distance = (sixths + 6 * turn + offsets) % 6
    return value - chroma * jnp.clip(jnp.minimum(distance, 4 - distance), 0, 1)
