"""Parameters and multiply-adds of the attention modules of Att-DARTS.

The convention is that of ``operation_cost``. Modules see a map of
``height x width x channels`` and return one of the same shape.

References:
  Nakai, Matsubara, Uehara, "Att-DARTS: Differentiable Neural Architecture Search for
  Attention", IJCNN 2020, III.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from adarts_jax.space.operation_cost import (
    FREE,
    Cost,
    batch_norm,
    bias,
    convolution,
    linear,
    total,
)

REDUCTION = 16


def squeezed_width(channels: int) -> int:
    """Return the width of the bottlenecks; at least 1, for networks of few channels."""
    return max(1, channels // REDUCTION)


def quarter_width(channels: int) -> int:
    """Return the features of double attention; at least 1."""
    return max(1, channels // 4)


def squeeze_excitation(channels: int, height: int, width: int) -> Cost:
    """SE: two linear layers without bias on the pooled channels."""
    squeezed = squeezed_width(channels)
    return total(
        [
            linear(channels, squeezed, bias=False),
            linear(squeezed, channels, bias=False),
        ]
    )


def bam(channels: int, height: int, width: int) -> Cost:
    """BAM: a channel branch of two linear layers and a dilated spatial branch."""
    squeezed, area = squeezed_width(channels), height * width
    norm = batch_norm(squeezed)
    dilated = [convolution(9, squeezed, squeezed, area), bias(squeezed), norm]
    return total(
        [
            linear(channels, squeezed),
            norm,
            linear(squeezed, channels),
            convolution(1, channels, squeezed, area),
            bias(squeezed),
            norm,
            *dilated,
            *dilated,
            convolution(1, squeezed, 1, area),
            bias(1),
        ]
    )


def cbam(channels: int, height: int, width: int) -> Cost:
    """CBAM: one MLP applied to two pooled vectors, then a 7x7 convolution 2 -> 1."""
    squeezed = squeezed_width(channels)
    mlp = total([linear(channels, squeezed), linear(squeezed, channels)])
    return total(
        [
            Cost(mlp.parameters, 2 * mlp.multiply_adds),
            convolution(49, 2, 1, height * width),
            batch_norm(1),
        ]
    )


def gather_excite(channels: int, height: int, width: int) -> Cost:
    """GE theta plus: a depthwise convolution as large as the map, then two 1x1."""
    squeezed = squeezed_width(channels)
    return total(
        [
            convolution(height * width, 1, channels, 1),
            batch_norm(channels),
            linear(channels, squeezed, bias=False),
            linear(squeezed, channels, bias=False),
        ]
    )


def double_attention(channels: int, height: int, width: int) -> Cost:
    """Double attention: three 1x1 to a quarter, two matrix products, one 1x1 back."""
    quarter, area = quarter_width(channels), height * width
    project = [convolution(1, channels, quarter, area), bias(quarter)]
    product = Cost(0, quarter * quarter * area)
    back = [convolution(1, quarter, channels, area), bias(channels)]
    return total([*project, *project, *project, product, product, *back])


def no_attention(channels: int, height: int, width: int) -> Cost:
    """The candidate that leaves the map as it is."""
    return FREE


ATTENTION_COSTS: Mapping[str, Callable[[int, int, int], Cost]] = MappingProxyType(
    {
        "Identity": no_attention,
        "SE": squeeze_excitation,
        "BAM": bam,
        "CBAM": cbam,
        "GE_theta-plus": gather_excite,
        "DoubleAttention": double_attention,
    }
)
"""Cost of every attention of ``operations.ATTENTIONS``: (channels, height, width)."""
