"""CutMix on the device: a box of every image comes from another image of the batch.

Pure functions; the transform also stands alone with its numbers given.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

Normalised = Float[Array, "batch height width channel"]


class Mixture(NamedTuple):
    """One draw for a whole batch.

    Attributes:
      box: first row, end row, first column, end column; empty where nothing is mixed.
      partners: image that the box of every image comes from.
      share: of an image that is its own, 0 to 1.
    """

    box: Int[Array, " 4"]
    partners: Int[Array, " batch"]
    share: Float[Array, ""]


def draw_mixture(
    key: PRNGKeyArray,
    *,
    shape: tuple[int, int, int],
    probability: float,
    beta: float = 1.0,
) -> Mixture:
    """Draw one box and one permutation for a batch, or nothing.

    With ``lambda ~ Beta(beta, beta)`` the box has ``sqrt(1 - lambda)`` of both sides,
    in whole pixels, around a centre drawn evenly over the image; what lies outside is
    cut off, so the share is counted again afterwards.

    Args:
      key: randomness.
      shape: batch, height, width. Static.
      probability: of mixing at all. Static.
      beta: both parameters of the Beta distribution. Static.

    References:
      Yun et al., "CutMix", ICCV 2019, as in the published training code of
      alpha-ADARTS (methods.md 6.1).
    """
    batch, height, width = shape
    to_apply, to_area, to_centre, to_partners = jax.random.split(key, 4)
    ratio = jnp.sqrt(1 - jax.random.beta(to_area, beta, beta))
    sides = jnp.array([height, width])
    centre = jax.random.randint(to_centre, (2,), 0, sides)
    reach = (sides * ratio).astype(jnp.int32) // 2
    ends = jnp.clip(jnp.stack([centre - reach, centre + reach], 1), 0, sides[:, None])
    is_mixed = jax.random.uniform(to_apply) < probability
    box = jnp.where(is_mixed, ends.reshape(4), 0)
    area = (box[1] - box[0]) * (box[3] - box[2])
    share = 1 - area.astype(jnp.float32) / (height * width)
    return Mixture(box, jax.random.permutation(to_partners, batch), share)


def paste(images: Normalised, mixture: Mixture) -> Normalised:
    """Fill the box of every image from its partner."""
    _, height, width, _ = images.shape
    top, bottom, left, right = mixture.box
    rows, columns = jnp.arange(height), jnp.arange(width)
    inside = ((rows >= top) & (rows < bottom))[:, None] & (
        (columns >= left) & (columns < right)
    )[None]
    return jnp.where(inside[None, :, :, None], images[mixture.partners], images)
