"""Edges of DARTS: all channels enter the operations."""

from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.architecture import CellWeights
from adarts_jax.edges import flow
from adarts_jax.edges.mixed_op import MixedOp
from adarts_jax.edges.wave import Wave

Images = Float[Array, "batch height width channel"]


class FullEdges(nn.Module):
    """One wave of edges ``y_e = b_e sum_o a_eo op_o(x)`` (methods.md 2.1).

    Attributes:
      wave: which edges.
      primitives: candidate operations, in the order of alpha's columns.
      stride: 2 on the edges that leave the inputs of a reduction cell.
      channel_divisor: 1; there is nothing to divide.

    References:
      Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
      equation 2.
    """

    wave: Wave
    primitives: tuple[str, ...]
    stride: int
    channel_divisor: int = 1

    @nn.compact
    def __call__(
        self, states: tuple[Images, ...], weights: CellWeights, *, train: bool
    ) -> list[Images]:
        """Return what this wave adds to each of its targets."""
        edge = flow.take_rows(self.wave, weights.edge)
        op = flow.take_rows(self.wave, weights.op) * edge[:, None]
        mixed = MixedOp(self.primitives, self.wave.size, self.stride, name="ops")
        y = mixed(flow.enter(self.wave, states), op, train=train)
        return flow.leave(self.wave, y)
