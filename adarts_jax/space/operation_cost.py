"""Parameters and multiply-adds of single operations.

Convention: one multiply-add per kernel element and output element of a convolution,
per weight of a linear layer, and per term of a matrix product. Batch norm, ReLU,
pooling, element-wise products, sums and biases cost none, as in the papers of the
field. Sizes are those of the input; all operations pad so that stride 2 halves it.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, Protocol


class Cost(NamedTuple):
    """Numbers of trained weights and of multiply-adds for one example."""

    parameters: int
    multiply_adds: int


class OperationCost(Protocol):
    """The cost of an operation; ``affine`` says whether batch norms have weights."""

    def __call__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        height: int,
        width: int,
        *,
        affine: bool = True,
    ) -> Cost:
        """Return the cost on an input of ``height x width x channels_in``."""
        ...


FREE = Cost(0, 0)


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs.

    >>> total([Cost(1, 10), Cost(2, 20)])
    Cost(parameters=3, multiply_adds=30)
    """
    costs = tuple(costs)
    return Cost(sum(c.parameters for c in costs), sum(c.multiply_adds for c in costs))


def halved(size: int, stride: int) -> int:
    """Return the output size of a padded operation: size / stride, rounded up."""
    return -(-size // stride)


def convolution(kernel: int, channels_in: int, channels_out: int, area: int) -> Cost:
    """A convolution without bias; ``kernel`` and ``area`` count positions.

    A depthwise convolution has ``channels_in=1``.
    """
    parameters = kernel * channels_in * channels_out
    return Cost(parameters, parameters * area)


def linear(features_in: int, features_out: int, *, bias: bool = True) -> Cost:
    """A linear layer applied once."""
    weights = features_in * features_out
    return Cost(weights + bias * features_out, weights)


def batch_norm(channels: int, *, affine: bool = True) -> Cost:
    """Scale and shift of a batch norm; none if it is not affine."""
    return Cost(2 * channels * affine, 0)


def bias(channels: int) -> Cost:
    """The biases of a convolution."""
    return Cost(channels, 0)


def conv_bn(
    channels_in: int,
    channels_out: int,
    stride: int,
    height: int,
    width: int,
    *,
    kernel: int = 1,
    affine: bool = True,
) -> Cost:
    """A square convolution and a batch norm; a ReLU before it changes nothing."""
    area = halved(height, stride) * halved(width, stride)
    conv = convolution(kernel * kernel, channels_in, channels_out, area)
    return total([conv, batch_norm(channels_out, affine=affine)])


def factorized_reduce(
    channels_in: int,
    channels_out: int,
    stride: int,
    height: int,
    width: int,
    *,
    affine: bool = True,
) -> Cost:
    """Two strided 1x1 convolutions of half the channels: one full 1x1 convolution."""
    return conv_bn(channels_in, channels_out, stride, height, width, affine=affine)


def depthwise_separable(
    channels_in: int,
    channels_out: int,
    stride: int,
    height: int,
    width: int,
    *,
    kernel: int,
    repeats: int,
    affine: bool = True,
) -> Cost:
    """Depthwise, pointwise, batch norm; repeated at stride 1 (``sep_conv``: twice)."""
    area = halved(height, stride) * halved(width, stride)
    middle = [channels_in] * (repeats - 1) + [channels_out]
    return total(
        cost
        for channels in middle
        for cost in (
            convolution(kernel * kernel, 1, channels_in, area),
            convolution(1, channels_in, channels, area),
            batch_norm(channels, affine=affine),
        )
    )


def conv_7x1_1x7(
    channels_in: int,
    channels_out: int,
    stride: int,
    height: int,
    width: int,
    *,
    affine: bool = True,
) -> Cost:
    """A 1x7 convolution that strides the width, then a 7x1 that strides the height."""
    narrow = halved(width, stride)
    return total(
        [
            convolution(7, channels_in, channels_out, height * narrow),
            convolution(7, channels_out, channels_out, halved(height, stride) * narrow),
            batch_norm(channels_out, affine=affine),
        ]
    )


def skip_connect(
    channels_in: int,
    channels_out: int,
    stride: int,
    height: int,
    width: int,
    *,
    affine: bool = True,
) -> Cost:
    """Identity at stride 1, factorized reduction at stride 2."""
    if stride == 1:
        return FREE
    return factorized_reduce(
        channels_in, channels_out, stride, height, width, affine=affine
    )


def weightless(
    channels_in: int,
    channels_out: int,
    stride: int,
    height: int,
    width: int,
    *,
    affine: bool = True,
) -> Cost:
    """``none`` and the pools; the batch norm after a searched pool is not affine."""
    return FREE


def _separable(kernel: int) -> OperationCost:
    return partial(depthwise_separable, kernel=kernel, repeats=2)


def _dilated(kernel: int) -> OperationCost:
    return partial(depthwise_separable, kernel=kernel, repeats=1)


OPERATION_COSTS: Mapping[str, OperationCost] = MappingProxyType(
    {
        "none": weightless,
        "max_pool_3x3": weightless,
        "avg_pool_3x3": weightless,
        "max_pool_5x5": weightless,
        "avg_pool_5x5": weightless,
        "skip_connect": skip_connect,
        "sep_conv_3x3": _separable(3),
        "sep_conv_5x5": _separable(5),
        "sep_conv_7x7": _separable(7),
        "dil_conv_3x3": _dilated(3),
        "dil_conv_5x5": _dilated(5),
        "conv_7x1_1x7": conv_7x1_1x7,
    }
)
"""Cost of every operation of ``operations.OPERATIONS``."""
