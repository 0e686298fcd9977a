"""Choose a part of the channels for the operations, and put the result back.

Selection is a product with a 0/1 matrix, so that neither direction needs a gather or
a scatter (performance.md).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

Images = Float[Array, "batch height width channel"]


def top_channels(
    scores: Float[Array, "edge channel"], count: int
) -> Int[Array, "edge selected"]:
    """Return the ``count`` best channels of every edge, best first.

    Equal scores keep the lowest index first (PyTorch leaves that order undefined).
    No gradient flows through the choice.
    """
    return lax.top_k(lax.stop_gradient(scores), count)[1]


def all_tied(scores: Float[Array, "edge channel"]) -> Bool[Array, " edge"]:
    """Whether all channels of an edge have the same score: the choice is arbitrary."""
    return jnp.all(scores == scores[:, :1], axis=-1)


def selection_matrix(
    indices: Int[Array, "edge selected"], channels: int
) -> Float[Array, "edge selected channel"]:
    """Return the 0/1 matrix that picks ``indices`` out of ``channels`` channels."""
    return jax.nn.one_hot(indices, channels, dtype=jnp.float32)


def first_channels(x: Images, divisor: int) -> tuple[Images, Images]:
    """Split off the first ``1 / divisor`` of the channels (PC-DARTS)."""
    count = x.shape[-1] // divisor
    return x[..., :count], x[..., count:]


def channel_shuffle(x: Images, groups: int) -> Images:
    """Interleave ``groups`` blocks: ``out[c * groups + g] = in[g * (C / groups) + c]``.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(16.0).reshape(1, 1, 1, 16)
    >>> [int(c) for c in channel_shuffle(x, 4).ravel()]
    [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]
    """
    *spatial, channels = x.shape
    blocks = x.reshape(*spatial, groups, channels // groups)
    return jnp.swapaxes(blocks, -1, -2).reshape(x.shape)
