"""Drop path: lose whole branches of a cell, one sample at a time.

Factors are drawn apart from their use, so that one draw serves a whole network and a
test can give the mask.

References:
  Larsson, Maire, Shakhnarovich, "FractalNet", ICLR 2017; as used by Zoph et al.,
  "Learning Transferable Architectures for Scalable Image Recognition", CVPR 2018.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Images = Float[Array, "batch height width channel"]


def draw_path_scales(
    key: PRNGKeyArray, rate: float | Float[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """Draw 0 with probability ``rate``, else ``1 / (1 - rate)``; the mean is 1.

    Args:
      key: randomness.
      rate: drop-path probability, in [0, 1); may be traced.
      shape: one factor per branch and sample.
    """
    keep = 1 - jnp.asarray(rate, jnp.float32)
    return jax.random.bernoulli(key, keep, shape) / keep


def drop_path(x: Images, scale: Float[Array, " batch"]) -> Images:
    """Multiply every sample of a branch by its factor."""
    return x * scale.astype(x.dtype)[:, None, None, None]
