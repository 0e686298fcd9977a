"""Every operation an edge can carry, as PyTorch modules (NCHW).

The index of a layer inside its ``nn.Sequential`` is part of the published state-dict
keys (``op.1.weight`` is the first depthwise convolution), hence the parameterless
layers that hold a place.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Index order of the ten-primitive space of alpha-ADARTS.
ALPHA_ADARTS_PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "max_pool_5x5",
    "avg_pool_5x5",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


class Zero(nn.Module):
    """The primitive ``none``: zeros of the output shape."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, height, width) to zeros, subsampled by the stride."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class ReluConvBn(nn.Module):
    """ReLU, 1x1 convolution, batch norm: the usual input adapter of a cell."""

    def __init__(self, channels_in: int, channels_out: int, *, affine: bool) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Change the channels, keep the resolution."""
        return self.op(x)


class FactorizedReduce(nn.Module):
    """Halve the resolution with two 1x1 convolutions on interleaved pixel grids."""

    def __init__(self, channels_in: int, channels_out: int, *, affine: bool) -> None:
        super().__init__()
        if channels_out % 2:
            raise ValueError(f"channels_out={channels_out} must be even")
        half = channels_out // 2
        self.conv_1 = nn.Conv2d(channels_in, half, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(channels_in, half, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Even image sides only: both grids must have the same size."""
        x = torch.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))


def _depthwise_block(
    channels: int, kernel: int, *, stride: int, dilation: int, affine: bool
) -> list[nn.Module]:
    depthwise = nn.Conv2d(
        channels,
        channels,
        kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=channels,
        bias=False,
    )
    pointwise = nn.Conv2d(channels, channels, 1, bias=False)
    return [
        nn.ReLU(),
        depthwise,
        pointwise,
        nn.BatchNorm2d(channels, affine=affine),
    ]


class DilatedConv(nn.Module):
    """ReLU, depthwise convolution with dilation 2, pointwise convolution, norm."""

    def __init__(self, channels: int, kernel: int, stride: int, *, affine: bool):
        super().__init__()
        block = _depthwise_block(
            channels, kernel, stride=stride, dilation=2, affine=affine
        )
        self.op = nn.Sequential(*block)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the channels, divide the resolution by the stride."""
        return self.op(x)


class SeparableConv(nn.Module):
    """Two depthwise-pointwise blocks; only the first one strides."""

    def __init__(self, channels: int, kernel: int, stride: int, *, affine: bool):
        super().__init__()
        blocks = [
            layer
            for block_stride in (stride, 1)
            for layer in _depthwise_block(
                channels, kernel, stride=block_stride, dilation=1, affine=affine
            )
        ]
        self.op = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the channels, divide the resolution by the stride."""
        return self.op(x)


def _row_column_conv(channels: int, stride: int, *, affine: bool) -> nn.Module:
    """Conv_7x1_1x7: a full convolution split into a row and a column kernel."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(
            channels, channels, (1, 7), stride=(1, stride), padding=(0, 3), bias=False
        ),
        nn.Conv2d(
            channels, channels, (7, 1), stride=(stride, 1), padding=(3, 0), bias=False
        ),
        nn.BatchNorm2d(channels, affine=affine),
    )


def _skip(channels: int, stride: int, *, affine: bool) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    return FactorizedReduce(channels, channels, affine=affine)


def _pool(kind: str, kernel: int, stride: int) -> nn.Module:
    if kind == "max":
        return nn.MaxPool2d(kernel, stride=stride, padding=kernel // 2)
    return nn.AvgPool2d(
        kernel, stride=stride, padding=kernel // 2, count_include_pad=False
    )


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "none": lambda c, s, affine: Zero(s),
    "max_pool_3x3": lambda c, s, affine: _pool("max", 3, s),
    "avg_pool_3x3": lambda c, s, affine: _pool("avg", 3, s),
    "max_pool_5x5": lambda c, s, affine: _pool("max", 5, s),
    "avg_pool_5x5": lambda c, s, affine: _pool("avg", 5, s),
    "skip_connect": lambda c, s, affine: _skip(c, s, affine=affine),
    "sep_conv_3x3": lambda c, s, affine: SeparableConv(c, 3, s, affine=affine),
    "sep_conv_5x5": lambda c, s, affine: SeparableConv(c, 5, s, affine=affine),
    "sep_conv_7x7": lambda c, s, affine: SeparableConv(c, 7, s, affine=affine),
    "dil_conv_3x3": lambda c, s, affine: DilatedConv(c, 3, s, affine=affine),
    "dil_conv_5x5": lambda c, s, affine: DilatedConv(c, 5, s, affine=affine),
    "conv_7x1_1x7": lambda c, s, affine: _row_column_conv(c, s, affine=affine),
}


NAMES = frozenset(_BUILDERS)


def primitive(name: str, channels: int, stride: int, *, affine: bool) -> nn.Module:
    """Build one operation at a fixed width.

    Args:
      name: name of the operation, e.g. ``"sep_conv_3x3"``.
      channels: channels in and out.
      stride: 1 or 2.
      affine: whether the batch norms learn scale and shift (retraining: yes, search:
        no).

    Raises:
      KeyError: if the name is unknown.
    """
    return _BUILDERS[name](channels, stride, affine)


def search_primitive(name: str, channels: int, stride: int) -> nn.Module:
    """Build one candidate of a mixed operation.

    Nothing learns scale and shift during search, and pools get a batch norm so that
    their output competes on the scale of the convolutions.
    """
    operation = primitive(name, channels, stride, affine=False)
    if "pool" not in name:
        return operation
    return nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False))
