"""Edges of ADARTS and alpha-ADARTS: attention picks the channels that are operated on.

``y_e = m_e * x`` (2 x 2 max pooled where the edge has stride 2) with the channels of
the best batch-summed attention overwritten by the mixed operation on them; a node is
the sum of ``b_e y_e`` over its edges (methods.md 2.3 and 2.4).
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.architecture import CellWeights
from adarts_jax.edges import flow, selection
from adarts_jax.edges.mixed_op import MixedOp
from adarts_jax.edges.wave import Wave
from adarts_jax.nn import partial_channels
from adarts_jax.nn.batch_norm import MOMENTUM
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
      channel_scores: what ranks the channels in a pass that does not train:
        "batch", the attention of the images at hand, as published, so that what is made
        of an image depends on its neighbours; or "average", that of the training
        batches so far, which makes images independent.

    Collections: ``params``, ``batch_stats`` (with ``average_score`` (edge, channel) for
    "average"); ``intermediates`` receives
    ``selected_channels`` (edge, selected) and ``tied_edges`` (a count).

    Differs from the original: equal attention keeps the lowest channel index first,
    where PyTorch's topk leaves the order undefined.
    """

    wave: Wave
    primitives: tuple[str, ...]
    stride: int
    channel_divisor: int
    attention: Callable[..., nn.Module]
    channel_scores: Literal["batch", "average"] = "batch"

    @nn.compact
    def __call__(
        self,
        states: tuple[Images, ...],
        cell_weights: CellWeights,
        *,
        train: bool,
    ) -> list[Images]:
        """Return what this wave adds to each of its targets.

        Args:
          states: the images of ``wave.sources``.
          cell_weights: those of all edges of the cell type.
          train: batch or running statistics in batch norm.
        """
        channels = states[0].shape[-1]
        attention = self._attention(states, cell_weights.op)
        scores = self._scores(attention, train=train)
        indices = partial_channels.top_channels(
            scores, channels // self.channel_divisor
        )
        self._record(scores, indices)
        picked = partial_channels.selection_matrix(indices, channels)
        weights = flow.take_rows(self.wave, cell_weights.edge)
        factor = jnp.einsum("ebc,ekc->ebk", attention, picked, precision="highest")
        factor = jnp.concatenate(list(factor), axis=-1)[:, None, None]
        chosen = selection.select(self.wave, states, picked)
        mixed = MixedOp(self.primitives, self.wave.size, self.stride, name="ops")(
            (chosen * factor).astype(chosen.dtype),
            flow.take_rows(self.wave, cell_weights.op),
            train=train,
        )
        kept = attention * ((1 - picked.sum(1)) * weights[:, None])[:, None]
        return selection.put_back(
            self.wave, states, mixed, picked, weights, kept, stride=self.stride
        )

    def _attention(
        self, states: tuple[Images, ...], op_weights: Float[Array, "all_edges op"]
    ) -> Float[Array, "edge batch channel"]:
        pooled = [pool_state(x) for x in states]
        mean, maximum = (
            jnp.stack([pooled[s][i] for s in self.wave.edge_sources], axis=0)
            for i in (0, 1)
        )
        return self.attention(name="attention")(mean, maximum, op_weights)

    def _scores(
        self, attention: Float[Array, "edge batch channel"], *, train: bool
    ) -> Float[Array, "edge channel"]:
        """Return what ranks the channels; training passes go into the average."""
        scores = attention.sum(1)
        if self.channel_scores == "batch":
            return scores
        average = self.variable("batch_stats", "average_score", jnp.zeros, scores.shape)
        if not train:
            return average.value
        if not self.is_initializing():
            mean = jax.lax.stop_gradient(attention.mean(1))
            average.value = MOMENTUM * average.value + (1 - MOMENTUM) * mean
        return scores

    def _record(
        self,
        scores: Float[Array, "edge channel"],
        indices: Float[Array, "edge selected"],
    ) -> None:
        tied = partial_channels.all_tied(scores).sum()
        self.sow("intermediates", "selected_channels", indices)
        self.sow("intermediates", "tied_edges", tied)
