"""Edges of ADARTS and alpha-ADARTS: attention picks the channels that are operated on.

``y_e = m_e * x`` (2 x 2 max pooled where the edge has stride 2) with the channels of
the best batch-summed attention overwritten by the mixed operation on them; a node is
the sum of ``b_e y_e`` over its edges (methods.md 2.3 and 2.4).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.edges.mixed_op import MixedOp
from adarts_jax.edges.wave import Wave
from adarts_jax.nn import partial_channels, pooling
from adarts_jax.nn.channel_attention import pool_state

Images = Float[Array, "batch height width channel"]


class AttendedEdges(nn.Module):
    """One wave of edges with attention over channels.

    Attributes:
      wave: which edges.
      primitives: candidate operations, in the order of alpha's columns.
      stride: 2 on the edges that leave the inputs of a reduction cell.
      channel_divisor: K; the best ``1 / K`` of the channels enter the operations.
      attention: module class called with (mean, maximum, op_weights).

    Collections: ``params``, ``batch_stats``; ``intermediates`` receives
    ``selected_channels`` (edge, selected) and ``tied_edges`` (a count).

    Differs from the original: equal attention keeps the lowest channel index first,
    where PyTorch's topk leaves the order undefined.
    """

    wave: Wave
    primitives: tuple[str, ...]
    stride: int
    channel_divisor: int
    attention: Callable[..., nn.Module]

    @nn.compact
    def __call__(
        self,
        states: tuple[Images, ...],
        op_weights: Float[Array, "all_edges op"],
        edge_weights: Float[Array, " all_edges"],
        *,
        train: bool,
    ) -> list[Images]:
        """Return what this wave adds to each of its targets.

        Args:
          states: the images of ``wave.sources``.
          op_weights: softmax of alpha, all edges of the cell type.
          edge_weights: softmax of beta per target node, all edges.
          train: batch or running statistics in batch norm.
        """
        channels = states[0].shape[-1]
        attention = self._attention(states, op_weights)
        indices = partial_channels.top_channels(
            attention.sum(0), channels // self.channel_divisor
        )
        self._record(attention, indices)
        picked = partial_channels.selection_matrix(indices, channels)
        # A product instead of a gather, whose gradient would be a scatter.
        rows = jax.nn.one_hot(jnp.array(self.wave.edges), len(edge_weights))
        weights = rows @ edge_weights
        mixed = MixedOp(self.primitives, self.wave.size, self.stride, name="ops")(
            self._select(states, picked, attention), rows @ op_weights, train=train
        )
        kept = attention * ((1 - picked.sum(1)) * weights[:, None])[None]
        return self._put_back(states, mixed, picked, weights, kept)

    def _attention(
        self, states: tuple[Images, ...], op_weights: Float[Array, "all_edges op"]
    ) -> Float[Array, "batch edge channel"]:
        pooled = [pool_state(x) for x in states]
        mean, maximum = (
            jnp.stack([pooled[s][i] for s in self.wave.edge_sources], axis=1)
            for i in (0, 1)
        )
        return self.attention(name="attention")(mean, maximum, op_weights)

    def _record(
        self,
        attention: Float[Array, "batch edge channel"],
        indices: Float[Array, "edge selected"],
    ) -> None:
        tied = partial_channels.all_tied(attention.sum(0)).sum()
        self.sow("intermediates", "selected_channels", indices)
        self.sow("intermediates", "tied_edges", tied)

    def _select(
        self,
        states: tuple[Images, ...],
        picked: Float[Array, "edge selected channel"],
        attention: Float[Array, "batch edge channel"],
    ) -> Images:
        """Attended selected channels of all edges, side by side."""
        parts = []
        for s, x in enumerate(states):
            mine = [e for e, source in enumerate(self.wave.edge_sources) if source == s]
            matrix = picked[mine[0] : mine[-1] + 1].reshape(-1, x.shape[-1])
            parts.append(jnp.einsum("bhwc,kc->bhwk", x, matrix, precision="highest"))
        factor = jnp.einsum("bec,ekc->bek", attention, picked, precision="highest")
        factor = factor.reshape(factor.shape[0], 1, 1, -1)
        return jnp.concatenate(parts, axis=-1) * factor

    def _put_back(
        self,
        states: tuple[Images, ...],
        mixed: Images,
        picked: Float[Array, "edge selected channel"],
        weights: Float[Array, " edge"],
        kept: Float[Array, "batch edge channel"],
    ) -> list[Images]:
        """Results to their channels, and the channels that bypass the operations."""
        channels, targets = states[0].shape[-1], self.wave.targets
        enters = jax.nn.one_hot(jnp.array(self.wave.edge_targets), len(targets))
        matrix = jnp.einsum("ekc,et->ektc", picked, enters * weights[:, None])
        matrix = matrix.reshape(mixed.shape[-1], len(targets) * channels)
        returned = mixed @ matrix
        # Attention is positive, so pooling the attended state is attending the pooled.
        base = [pooling.max_pool_2x2(x) if self.stride == 2 else x for x in states]
        sums = []
        for t in range(len(targets)):
            total = returned[..., t * channels : (t + 1) * channels]
            for e in range(self.wave.size):
                if self.wave.edge_targets[e] == t:
                    source = base[self.wave.edge_sources[e]]
                    total = total + source * kept[:, None, None, e]
            sums.append(total)
        return sums
