"""The candidate operations by name, alone and in stacks of one family.

A mixed operation runs all primitives of a family as one stack, a derived network one
primitive at a time; both are the same layers. Inside a mixed operation batch norm has
no parameters and pools are normalised too; in a derived network batch norm is affine
and pools are bare.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.errors import UserError, did_you_mean
from adarts_jax.nn import pooling
from adarts_jax.nn.batch_norm import BatchNorm
from adarts_jax.nn.layers import (
    DilatedConv,
    FactorizedConv7,
    FactorizedReduce,
    SeparableConv,
)
from adarts_jax.nn.relu import relu

Images = Float[Array, "batch height width channel"]
Stacked = Float[Array, "op batch height width channel"]

Family = Literal[
    "none", "skip", "max_pool", "avg_pool", "sep_conv", "dil_conv", "conv_7x1_1x7"
]


@dataclasses.dataclass(frozen=True)
class Primitive:
    """One candidate operation: its family and the size of its window."""

    family: Family
    size: int = 1


PRIMITIVES: Mapping[str, Primitive] = MappingProxyType(
    {
        "none": Primitive("none"),
        "max_pool_3x3": Primitive("max_pool", 3),
        "avg_pool_3x3": Primitive("avg_pool", 3),
        "max_pool_5x5": Primitive("max_pool", 5),
        "avg_pool_5x5": Primitive("avg_pool", 5),
        "skip_connect": Primitive("skip"),
        "sep_conv_3x3": Primitive("sep_conv", 3),
        "sep_conv_5x5": Primitive("sep_conv", 5),
        "sep_conv_7x7": Primitive("sep_conv", 7),
        "dil_conv_3x3": Primitive("dil_conv", 3),
        "dil_conv_5x5": Primitive("dil_conv", 5),
        "conv_7x1_1x7": Primitive("conv_7x1_1x7", 7),
    }
)


def find_primitive(name: str) -> Primitive:
    """Look a primitive up.

    Raises:
      UserError: no primitive has this name.
    """
    if name not in PRIMITIVES:
        raise UserError(
            f"unknown operation '{name}'{did_you_mean(name, PRIMITIVES)}"
            f" (known: {', '.join(PRIMITIVES)})"
        )
    return PRIMITIVES[name]


@dataclasses.dataclass(frozen=True)
class Stack:
    """Primitives of one family.

    Attributes:
      family: the family.
      sizes: window of each primitive.
      columns: position of each primitive in the list it came from.
    """

    family: Family
    sizes: tuple[int, ...]
    columns: tuple[int, ...]


def group_by_family(primitives: Sequence[str]) -> tuple[Stack, ...]:
    """Gather the primitives of each family, families in order of appearance.

    >>> [s.sizes for s in group_by_family(["skip_connect", "sep_conv_3x3",
    ...                                    "max_pool_3x3", "sep_conv_5x5"])]
    [(1,), (3, 5), (3,)]
    """
    found = [find_primitive(name) for name in primitives]
    families: dict[Family, None] = dict.fromkeys(p.family for p in found)
    stacks = []
    for family in families:
        columns = tuple(i for i, p in enumerate(found) if p.family == family)
        stacks.append(Stack(family, tuple(found[i].size for i in columns), columns))
    return tuple(stacks)


class OperationStack(nn.Module):
    """The primitives of one family, up to but not including their last batch norm.

    Convolutions begin with a ReLU, so do strided identities.

    Attributes:
      family: any family except "none".
      sizes: window of each primitive.
      channels: width per edge, in and out.
      stride: 1 or 2.
      num_edges: edges side by side in the channels, each with weights of its own.
      affine: whether inner batch norms have parameters.

    Raises:
      ValueError: conv_7x1_1x7, a dense convolution, for more than one edge.
    """

    family: Family
    sizes: tuple[int, ...]
    channels: int
    stride: int = 1
    num_edges: int = 1
    affine: bool = True

    @nn.compact
    def __call__(
        self, x: Stacked, rectified: Stacked | None = None, *, train: bool
    ) -> Stacked:
        """Map images shared by all operations to one output per operation.

        Args:
          x: images.
          rectified: their ReLU, if families share it.
          train: see ``BatchNorm``.
        """
        sizes, stride, edges = self.sizes, self.stride, self.num_edges
        if has_weights(self.family, stride=stride):
            x = relu(x) if rectified is None else rectified
        match self.family:
            case "max_pool":
                return pooling.max_pool(x, sizes=sizes, stride=stride)
            case "avg_pool":
                return pooling.avg_pool(x, sizes=sizes, stride=stride)
            case "sep_conv":
                conv = SeparableConv(
                    sizes, self.channels, stride, edges, self.affine, name="conv"
                )
                return conv(x, train=train)
            case "dil_conv":
                return DilatedConv(sizes, self.channels, stride, edges, name="conv")(x)
            case "conv_7x1_1x7":
                if edges != 1:
                    raise ValueError("conv_7x1_1x7 cannot be a stack of edges")
                return FactorizedConv7(self.channels, stride, name="conv")(x)
            case "skip":
                if stride == 1:
                    return x
                return FactorizedReduce(self.channels, edges, name="conv")(x)
        raise ValueError(f"family '{self.family}' is not an operation")


def has_weights(family: Family, *, stride: int) -> bool:
    """Whether a family is convolutions, which stand between ReLU and batch norm."""
    if family == "skip":
        return stride > 1
    return family not in ("none", "max_pool", "avg_pool")


def is_normalized(family: Family, *, stride: int, mixed: bool) -> bool:
    """Whether batch norm follows a family: never on zeros and identities."""
    is_pool = family in ("max_pool", "avg_pool")
    return has_weights(family, stride=stride) or (mixed and is_pool)


class SinglePrimitive(nn.Module):
    """One primitive by itself, with its batch norm: the layer of a derived network.

    Attributes:
      primitive: a key of ``PRIMITIVES``.
      channels: width, in and out.
      stride: 1 or 2.
      mixed: behave as inside a mixed operation (see the module's docstring).
    """

    primitive: str
    channels: int
    stride: int = 1
    mixed: bool = False

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Images:
        """Apply the operation."""
        found = find_primitive(self.primitive)
        if found.family == "none":
            return jnp.zeros_like(x[:, :: self.stride, :: self.stride])
        affine = not self.mixed
        stack = OperationStack(
            found.family,
            (found.size,),
            self.channels,
            self.stride,
            affine=affine,
            name="op",
        )
        y = stack(x[None], train=train)[0]
        if is_normalized(found.family, stride=self.stride, mixed=self.mixed):
            y = BatchNorm(affine, name="bn")(y, train=train)
        return y
