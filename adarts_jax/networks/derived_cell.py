"""A cell of a derived network: two chosen operations per node.

With Att-DARTS an attention follows every operation.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.nn.attention_modules import AttentionLayer
from adarts_jax.nn.boundary import boundary
from adarts_jax.nn.drop_path import drop_path
from adarts_jax.nn.layers import FactorizedReduceBn, ReluConvBn
from adarts_jax.nn.primitives import SinglePrimitive
from adarts_jax.space import topology
from adarts_jax.space.genotype import Entry
from adarts_jax.space.operations import ATTENTIONS

Images = Float[Array, "batch height width channel"]
PathScales = Float[Array, "edge batch"]


class DerivedCell(nn.Module):
    """A cell whose nodes add two operations each.

    Attributes:
      entries: two per node: operation and state it starts from.
      concat: states that form the output.
      channels: width of every node.
      reduction: whether the edges that leave the inputs have stride 2.
      after_reduction: whether the first input has twice the size of the second.
      train: batch statistics (recorded) instead of running ones.
      bottleneck: attention after the concatenation, None for none. No published
        genotype has one.

    Collections: ``params``, ``batch_stats``.
    """

    entries: tuple[Entry, ...]
    concat: tuple[int, ...]
    channels: int
    reduction: bool = False
    after_reduction: bool = False
    train: bool = False
    bottleneck: str | None = None

    @nn.compact
    def __call__(
        self, s0: Images, s1: Images, path_scales: PathScales | None = None
    ) -> Images:
        """Return the concatenated nodes, ``len(concat) * channels`` channels.

        Args:
          s0: output of the cell before the previous one.
          s1: output of the previous cell.
          path_scales: drop-path factor of every entry and sample; None for no drop
            path. Stride-1 skips do not use theirs, and neither do edges with the
            identity attention: they are never dropped.
        """
        first = FactorizedReduceBn if self.after_reduction else ReluConvBn
        s0 = first(self.channels, name="preprocess0")(s0, train=self.train)
        s1 = ReluConvBn(self.channels, name="preprocess1")(s1, train=self.train)
        s0, s1, path_scales = boundary((s0, s1, path_scales))
        states = [s0, s1]
        for left in range(0, len(self.entries), 2):
            parts = [
                self._branch(index, states, path_scales) for index in (left, left + 1)
            ]
            states.append(parts[0] + parts[1])
        y = jnp.concatenate([states[state] for state in self.concat], axis=-1)
        if self.bottleneck is not None:
            last = AttentionLayer(self.bottleneck, y.shape[-1], name="bottleneck")
            y = last(y, train=self.train)
        return boundary(y)

    def _branch(
        self, index: int, states: Sequence[Images], path_scales: PathScales | None
    ) -> Images:
        entry = self.entries[index]
        stride = 2 if self.reduction and entry.source < topology.NUM_INPUTS else 1
        op = make_layer(entry.op, self.channels, stride, f"op_{index}")
        y = op(states[entry.source], train=self.train)
        is_identity = entry.op == "skip_connect" and stride == 1
        if entry.attention is not None:
            attention = make_layer(
                entry.attention, self.channels, 1, f"attention_{index}"
            )
            y = attention(y, train=self.train)
            is_identity = is_identity or entry.attention == "Identity"
        if path_scales is None or is_identity:
            return y
        return drop_path(y, path_scales[index])


def make_layer(layer: str, channels: int, stride: int, name: str) -> nn.Module:
    """Make one layer of an edge: an operation, or an attention."""
    if layer in ATTENTIONS:
        return AttentionLayer(layer, channels, stride, name=name)
    return SinglePrimitive(layer, channels, stride, name=name)
