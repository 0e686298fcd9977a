"""Attention over the channels of a state, one small network per edge.

Arrays are edge-major, so that the networks of all edges are one batched product as
they lie in memory.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.nn.initial_weights import torch_uniform

Pooled = Float[Array, "edge batch channel"]


def pool_state(
    x: Float[Array, "batch height width channel"],
) -> tuple[Float[Array, "batch channel"], Float[Array, "batch channel"]]:
    """Return mean and maximum over the image; shared by all edges that leave a state.

    At least float32. A tied maximum sends its gradient to the first pixel, as in
    PyTorch.
    """
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    precise = jnp.promote_types(x.dtype, jnp.float32)
    return flat.mean(1, dtype=precise), _maximum(flat).astype(precise)


@jax.custom_vjp
def _maximum(
    flat: Float[Array, "batch pixel channel"],
) -> Float[Array, "batch channel"]:
    return flat.max(1)


def _maximum_forward(flat):
    maximum = flat.max(1)
    pixels = jax.lax.broadcasted_iota(jnp.int32, flat.shape, 1)
    candidates = jnp.where(flat == maximum[:, None], pixels, flat.shape[1])
    return maximum, (candidates.min(1), pixels[:1, :, :1])


def _maximum_backward(residuals, g):
    winner, pixels = residuals
    return (jnp.where(pixels == winner[:, None], g[:, None], 0),)


_maximum.defvjp(_maximum_forward, _maximum_backward)


class AlphaAttention(nn.Module):
    """Channel attention of alpha-ADARTS, conditioned on the architecture.

    ``m = sigmoid(F2 relu(A^T A F1 [mean; max]))`` where A holds the op weights of all
    edges of the cell type (methods.md 2.4). The gradient reaches alpha through A.

    Collections: ``params`` fc1 (edge, 2 * channel, op), fc2 (edge, op, channel).

    Differs from the original: the width of the bottleneck is the number of primitives
    in both layers (the original writes the literal 10 in one of them; equal for its
    10 primitives).
    """

    @nn.compact
    def __call__(
        self, mean: Pooled, maximum: Pooled, op_weights: Float[Array, "all_edges op"]
    ) -> Pooled:
        """Return one factor in (0, 1) per edge, image and channel."""
        edges, _, channels = mean.shape
        ops = op_weights.shape[1]
        fc1 = self.param("fc1", torch_uniform(2 * channels), (edges, 2 * channels, ops))
        fc2 = self.param("fc2", torch_uniform(ops), (edges, ops, channels))
        hidden = jnp.einsum(
            "ebc,eco->ebo", jnp.concatenate([mean, maximum], axis=-1), fc1
        )
        hidden = nn.relu(hidden @ (op_weights.T @ op_weights))
        return nn.sigmoid(jnp.einsum("ebo,eoc->ebc", hidden, fc2))


class MlpAttention(nn.Module):
    """Channel attention of ADARTS: one shared two-layer network on mean and maximum.

    ``m = sigmoid(F2 relu(F1 mean) + F2 relu(F1 max))``, no biases, hidden width half
    of the channels (methods.md 2.3).

    Collections: ``params`` fc1 (edge, channel, channel / 2), fc2 (the reverse).
    """

    @nn.compact
    def __call__(
        self, mean: Pooled, maximum: Pooled, op_weights: Float[Array, "all_edges op"]
    ) -> Pooled:
        """Return one factor in (0, 1) per edge, image and channel."""
        del op_weights
        edges, _, channels = mean.shape
        hidden = channels // 2
        fc1 = self.param("fc1", torch_uniform(channels), (edges, channels, hidden))
        fc2 = self.param("fc2", torch_uniform(hidden), (edges, hidden, channels))

        def mlp(v: Pooled) -> Pooled:
            inner = nn.relu(jnp.einsum("ebc,ech->ebh", v, fc1))
            return jnp.einsum("ebh,ehc->ebc", inner, fc2)

        return nn.sigmoid(mlp(mean) + mlp(maximum))
