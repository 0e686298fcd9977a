"""Edges of PC-DARTS: a part of the channels enters the operations, the rest goes by."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.architecture import CellWeights
from adarts_jax.edges import flow, selection
from adarts_jax.edges.mixed_op import MixedOp
from adarts_jax.edges.wave import Wave
from adarts_jax.nn import partial_channels, pooling

Images = Float[Array, "batch height width channel"]

CHANNELS_STREAM = "channels"


class PartialEdges(nn.Module):
    """One wave of edges on ``1 / K`` of the channels (methods.md 2.2).

    ``"first"``: ``y_e = shuffle([sum_o a_eo op_o(x_first), x_rest])``, the rest 2 x 2
    max pooled where the edge has stride 2. ``"random"``: every edge draws a new subset
    per forward pass and writes the results back to the channels they came from.

    Attributes:
      wave: which edges.
      primitives: candidate operations, in the order of alpha's columns.
      stride: 2 on the edges that leave the inputs of a reduction cell.
      channel_divisor: K.
      channel_choice: which part enters the operations. A pass that is given no random
        stream and does not train takes the first part.

    Random stream: ``channels``, for ``"random"``.

    Differs from the original: its script for random channels discards the permutation
    and so always takes the first channels, which it never shuffles back.

    References:
      Xu et al., "PC-DARTS: Partial Channel Connections for Memory-Efficient
      Architecture Search", ICLR 2020.
    """

    wave: Wave
    primitives: tuple[str, ...]
    stride: int
    channel_divisor: int
    channel_choice: Literal["first", "random"] = "first"

    @nn.compact
    def __call__(
        self, states: tuple[Images, ...], weights: CellWeights, *, train: bool
    ) -> list[Images]:
        """Return what this wave adds to each of its targets."""
        op = flow.take_rows(self.wave, weights.op)
        edge = flow.take_rows(self.wave, weights.edge)
        mixed = MixedOp(self.primitives, self.wave.size, self.stride, name="ops")
        if self.channel_choice == "random":
            picked = self._draw(states[0].shape[-1], train=train)
            y = mixed(selection.select(self.wave, states, picked), op, train=train)
            kept = ((1 - picked.sum(1)) * edge[:, None])[:, None]
            return selection.put_back(
                self.wave, states, y, picked, edge, kept, stride=self.stride
            )
        split = [
            partial_channels.first_channels(x, self.channel_divisor) for x in states
        ]
        first = flow.enter(self.wave, tuple(x for x, _ in split))
        rest = tuple(x for _, x in split)
        if self.stride == 2:
            rest = tuple(pooling.max_pool_2x2(x) for x in rest)
        y = mixed(first, op * edge[:, None], train=train)
        return [
            partial_channels.channel_shuffle(
                jnp.concatenate([worked, gone_by], axis=-1), self.channel_divisor
            )
            for worked, gone_by in zip(
                flow.leave(self.wave, y),
                flow.bypass(self.wave, rest, edge),
                strict=True,
            )
        ]

    def _draw(
        self, channels: int, *, train: bool
    ) -> Float[Array, "edge selected channel"]:
        """Draw one subset per edge."""
        count = channels // self.channel_divisor
        scores = -jnp.broadcast_to(jnp.arange(channels), (self.wave.size, channels))
        if train or self.has_rng(CHANNELS_STREAM):
            scores = jax.random.uniform(self.make_rng(CHANNELS_STREAM), scores.shape)
        indices = partial_channels.top_channels(scores.astype(jnp.float32), count)
        self.sow("intermediates", "selected_channels", indices)
        return partial_channels.selection_matrix(indices, channels)
