"""Edges of G-DARTS-A: the channels of an edge in groups, each with a trained factor.

The paper's text names the parts, but its numbers and its equation 1 are lost: what
follows is our choice, and every part of it is a field (methods.md 2.5, U7 to U14).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from adarts_jax.architecture import CellWeights
from adarts_jax.edges import flow
from adarts_jax.edges.mixed_op import MixedOp
from adarts_jax.edges.wave import Wave
from adarts_jax.nn.partial_channels import channel_shuffle

Images = Float[Array, "batch height width channel"]
Activation = Literal["none", "softmax", "sigmoid"]

INITIAL = (0.7, 0.9, 1.1, 1.3)
ACTIVATIONS: Mapping[Activation, Callable[[Array], Array]] = {
    "none": lambda factors: factors,
    "softmax": lambda factors: jax.nn.softmax(factors, axis=-1),
    "sigmoid": jax.nn.sigmoid,
}


class GroupedEdges(nn.Module):
    """One wave of edges whose channels lie in M equal groups with factors ``w_g``.

    ``y_e = b_e sum_o a_eo op_o(concat_g w_g x_g)`` (place "before"), or
    ``y_e = b_e concat_g w_g [sum_o a_eo op_o(x)]_g`` ("after"). An operation whose
    1 x 1 convolutions have as many groups never mixes them; with shared kernels that is
    the same operation on every group, one path per group.

    Attributes:
      wave: which edges.
      primitives: candidate operations, in the order of alpha's columns.
      stride: 2 on the edges that leave the inputs of a reduction cell.
      channel_divisor: 1; all channels enter.
      group_initial: factors at the start, one per group. Our choice: four, different
        from each other as the paper says, of mean 1.
      group_activation: of the factors. Our choice: none.
      group_place: before or after the operations.
      conv_groups: groups of the convolutions inside the operations.
      group_kernels: "shared" by the groups or "independent"; the statistics of batch
        norm are each group's own.
      shuffle: interleave the groups as PC-DARTS does.

    Collections: ``params`` (``groups`` (edge, group) unless the architecture has them),
    ``batch_stats``.

    Differs from a grouped PyTorch layer: the two halves of a factorized reduction lie
    group by group.

    References:
      G-DARTS-A, sections 4.1 to 4.3 and 5.2.
    """

    wave: Wave
    primitives: tuple[str, ...]
    stride: int
    channel_divisor: int = 1
    group_initial: tuple[float, ...] = INITIAL
    group_activation: Activation = "none"
    group_place: Literal["before", "after"] = "before"
    conv_groups: int = 1
    group_kernels: Literal["shared", "independent"] = "independent"
    shuffle: bool = False

    @nn.compact
    def __call__(
        self, states: tuple[Images, ...], weights: CellWeights, *, train: bool
    ) -> list[Images]:
        """Return what this wave adds to each of its targets."""
        edge = flow.take_rows(self.wave, weights.edge)
        op = flow.take_rows(self.wave, weights.op) * edge[:, None]
        x = flow.enter(self.wave, states)
        factors = self._factors(weights, x.shape[-1])
        if self.group_place == "before":
            x = (x * factors).astype(x.dtype)
        y = self._mixed()(x, jnp.repeat(op, self.conv_groups, axis=0), train=train)
        if self.group_place == "after":
            y = y * factors
        outputs = flow.leave(self.wave, y)
        if not self.shuffle:
            return outputs
        groups = len(self.group_initial)
        return [channel_shuffle(output, groups) for output in outputs]

    def _factors(self, weights: CellWeights, total: int) -> Images:
        """Return one factor per channel of all edges."""
        shape = (self.wave.size, len(self.group_initial))
        if weights.groups is not None:
            values = flow.take_rows(self.wave, weights.groups)
        else:
            values = self.param(
                "groups",
                lambda key: jnp.broadcast_to(jnp.array(self.group_initial), shape),
            )
        values = ACTIVATIONS[self.group_activation](values).reshape(-1)
        return jnp.repeat(values, total // values.size)[None, None, None]

    def _mixed(self) -> nn.Module:
        """Return the mixed operation: every group of an edge is an edge of its own."""
        size = self.wave.size * self.conv_groups
        if self.group_kernels == "independent" or self.conv_groups == 1:
            return MixedOp(self.primitives, size, self.stride, name="ops")
        convert = functools.partial(
            _per_edge, edges=self.wave.size, groups=self.conv_groups
        )
        shared: Any = nn.map_variables(
            MixedOp,
            "params",
            trans_in_fn=functools.partial(convert, spread=True),
            trans_out_fn=functools.partial(convert, spread=False),
            init=self.is_initializing(),
        )
        return shared(self.primitives, size, self.stride, name="ops")


def _per_edge(params: PyTree, *, edges: int, groups: int, spread: bool) -> PyTree:
    """Repeat the kernels of every edge for its groups, or keep the first of each."""

    def convert(path: tuple, kernel: Array) -> Array:
        is_pointwise = "pointwise" in jax.tree_util.keystr(path)
        axis = 1 if is_pointwise else kernel.ndim - 1  # edge-major channels
        parts = edges if spread else edges * groups
        shape = (*kernel.shape[:axis], parts, -1, *kernel.shape[axis + 1 :])
        split = kernel.reshape(shape)
        if spread:
            split = jnp.repeat(split, groups, axis=axis)
        else:
            split = split[(slice(None),) * axis + (slice(None, None, groups),)]
        return split.reshape(*kernel.shape[:axis], -1, *kernel.shape[axis + 1 :])

    return jax.tree_util.tree_map_with_path(convert, params)
