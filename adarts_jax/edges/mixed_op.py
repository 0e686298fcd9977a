"""The mixed operation: the weighted sum of all primitives on a stack of edges."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.nn.batch_norm import spread
from adarts_jax.nn.mixed_norm import NormalizedSum
from adarts_jax.nn.primitives import OperationStack, group_by_family, is_normalized
from adarts_jax.nn.relu import relu

Images = Float[Array, "batch height width channel"]


class MixedOp(nn.Module):
    """``y = sum_o w[e, o] * op_o(x)`` for every edge e of a stack.

    Families run as stacks; batch norm and weighted sum are one step for all of them.

    Attributes:
      primitives: names, in the order of alpha's columns. ``none`` adds nothing.
      num_edges: edges side by side in the channels of the input.
      stride: 1 or 2.

    Collections: ``params``; ``batch_stats``, where the rows of ``bn`` follow
    ``normalized_columns``.
    """

    primitives: tuple[str, ...]
    num_edges: int
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Images, op_weights: Float[Array, "edge op"], *, train: bool
    ) -> Images:
        """Apply every primitive to every edge and add up."""
        width = x.shape[-1] // self.num_edges
        weights = jnp.repeat(op_weights.T, width, axis=1)
        total = jnp.zeros_like(x[:, :: self.stride, :: self.stride])
        outputs, rectified = [], relu(x[None])
        for stack in group_by_family(self.primitives):
            if stack.family == "none":
                continue
            if not is_normalized(stack.family, stride=self.stride, mixed=True):
                total = total + x * spread(weights[stack.columns[0]])  # the identity
                continue
            module = OperationStack(
                stack.family,
                stack.sizes,
                width,
                self.stride,
                self.num_edges,
                affine=False,
                name=stack.family,
            )
            outputs.append(module(x[None], rectified, train=train))
        if not outputs:
            return total.astype(x.dtype)
        columns = normalized_columns(self.primitives, self.stride)
        scale = jnp.stack([weights[column] for column in columns])
        normalized = NormalizedSum(name="bn")(tuple(outputs), scale, train=train)
        return (total + normalized).astype(x.dtype)


def normalized_columns(primitives: tuple[str, ...], stride: int) -> tuple[int, ...]:
    """Columns of alpha whose operation ends in batch norm, in stacking order."""
    return tuple(
        column
        for stack in group_by_family(primitives)
        if is_normalized(stack.family, stride=stride, mixed=True)
        for column in stack.columns
    )
