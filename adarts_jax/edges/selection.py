"""Take chosen channels out of the states of a wave, and put results in their place."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adarts_jax.edges.wave import Wave
from adarts_jax.nn import pooling

Images = Float[Array, "batch height width channel"]
Picked = Float[Array, "edge selected channel"]


def select(wave: Wave, states: tuple[Images, ...], picked: Picked) -> Images:
    """Return the chosen channels of all edges, side by side.

    Args:
      wave: the edges.
      states: what they leave.
      picked: 0/1 matrix of every edge.
    """
    parts = []
    for s, x in enumerate(states):
        mine = [e for e, source in enumerate(wave.edge_sources) if source == s]
        matrix = picked[mine[0] : mine[-1] + 1].reshape(-1, x.shape[-1])
        parts.append(_multiply(x, matrix.T, precision="highest"))
    return jnp.concatenate(parts, axis=-1)


def put_back(
    wave: Wave,
    states: tuple[Images, ...],
    mixed: Images,
    picked: Picked,
    weights: Float[Array, " edge"],
    kept: Float[Array, "edge batch channel"],
    *,
    stride: int,
) -> list[Images]:
    """Results to their channels, and the channels that bypass the operations.

    Args:
      wave: the edges.
      states: what they leave.
      mixed: results of the operations, side by side.
      picked: 0/1 matrix of every edge.
      weights: factor of the result of every edge.
      kept: factor of the channels that go by, 0 for the chosen ones.
      stride: of the edges; 2 pools what goes by.

    Returns:
      One sum per target.
    """
    targets = wave.targets
    enters = jax.nn.one_hot(jnp.array(wave.edge_targets), len(targets))
    matrix = jnp.einsum("ekc,et->ektc", picked, enters * weights[:, None])
    returned = _multiply(mixed, matrix.reshape(mixed.shape[-1], -1))
    # Factors are not negative, so pooling the product is multiplying the pooled.
    base = [pooling.max_pool_2x2(x) if stride == 2 else x for x in states]
    sums = []
    for t, total in enumerate(jnp.split(returned, len(targets), axis=-1)):
        for e in range(wave.size):
            if wave.edge_targets[e] == t:
                source = base[wave.edge_sources[e]]
                total = total + source * kept[e, :, None, None]
        sums.append(total)
    return sums


def _multiply(
    x: Images, matrix: Float[Array, "i o"], precision: str | None = None
) -> Images:
    # One axis of pixels: the gradient of a product over three of them is transposed.
    pixels = x.reshape(-1, x.shape[-1])
    y = jnp.matmul(pixels, matrix.astype(x.dtype), precision=precision)
    return y.reshape(*x.shape[:-1], -1)
