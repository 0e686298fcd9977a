"""The attentions that follow an operation in Att-DARTS, as PyTorch modules (NCHW).

Names of layers are those of the published state dicts: everything of an attention is
inside its ``_mask``.

References:
  Nakai, Matsubara, Uehara, "Att-DARTS", IJCNN 2020, III.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

REDUCTION = 16


class SqueezeExcitation(nn.Module):
    """One gate per channel, from the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        excitation = nn.Sequential(
            nn.Linear(channels, channels // REDUCTION, bias=False),
            nn.ReLU(),
            nn.Linear(channels // REDUCTION, channels, bias=False),
            nn.Sigmoid(),
        )
        self._mask = nn.ModuleDict({"excitation": excitation})

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return x * self._mask["excitation"](x.mean((2, 3)))[:, :, None, None]


class Bam(nn.Module):
    """A channel branch times a dilated spatial branch, inside of ``1 + sigmoid``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // REDUCTION
        channel = {
            "gate_c_fc_0": nn.Linear(channels, width),
            "gate_c_bn_1": nn.BatchNorm1d(width),
            "relu": nn.ReLU(),
            "gate_c_fc_final": nn.Linear(width, channels),
        }
        spatial = {
            "gate_s_conv_reduce0": nn.Conv2d(channels, width, 1),
            "gate_s_bn_reduce0": nn.BatchNorm2d(width),
            "relu": nn.ReLU(),
        }
        for index in (0, 1):
            conv = nn.Conv2d(width, width, 3, padding=4, dilation=4)
            spatial[f"gate_s_conv_di_{index}"] = conv
            spatial[f"gate_s_bn_di_{index}"] = nn.BatchNorm2d(width)
            spatial[f"relu_{index}"] = nn.ReLU()
        spatial["gate_s_conv_final"] = nn.Conv2d(width, 1, 1)
        self._mask = nn.ModuleDict(
            {
                "channel_att": nn.ModuleDict({"gate_c": _in_order(channel)}),
                "spatial_att": nn.ModuleDict({"gate_s": _in_order(spatial)}),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        channel = self._mask.get_submodule("channel_att.gate_c")(x.mean((2, 3)))
        spatial = self._mask.get_submodule("spatial_att.gate_s")(x)
        return x * (1 + torch.sigmoid(channel[:, :, None, None] * spatial))


class Cbam(nn.Module):
    """Channel attention from means and maxima, then spatial attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // REDUCTION
        mlp = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, width),
            nn.ReLU(),
            nn.Linear(width, channels),
        )
        spatial = {
            "conv": nn.Conv2d(2, 1, 7, padding=3, bias=False),
            "bn": nn.BatchNorm2d(1, momentum=0.01),
        }
        self._mask = nn.ModuleDict(
            {
                "ChannelAttention": nn.ModuleDict({"mlp": mlp}),
                "SpatialAttention": nn.ModuleDict({"spatial": _in_order(spatial)}),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        mlp = self._mask.get_submodule("ChannelAttention.mlp")
        channel = mlp(x.mean((2, 3))) + mlp(x.amax((2, 3)))
        x = x * torch.sigmoid(channel)[:, :, None, None]
        summary = torch.stack([x.amax(1), x.mean(1)], dim=1)
        spatial = self._mask.get_submodule("SpatialAttention.spatial")
        return x * torch.sigmoid(spatial(summary))


class DoubleAttention(nn.Module):
    """Gather features over all places, hand them back to each place; added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 4
        layers = {name: nn.Conv2d(channels, width, 1) for name in _PROJECTIONS}
        self._mask = nn.ModuleDict({**layers, "convZ": nn.Conv2d(width, channels, 1)})

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        a, b, v = (self._mask[name](x).flatten(2) for name in _PROJECTIONS)
        gathered = a @ b.softmax(2).transpose(1, 2)
        handed = (gathered @ v.softmax(1)).unflatten(2, x.shape[2:])
        return x + self._mask["convZ"](handed)


_PROJECTIONS = ("convA", "convB", "convV")

ATTENTIONS: dict[str, Callable[[int], nn.Module]] = {
    "Identity": lambda channels: nn.Identity(),
    "SE": SqueezeExcitation,
    "BAM": Bam,
    "CBAM": Cbam,
    "DoubleAttention": DoubleAttention,
}
"""Attentions whose weights do not depend on the resolution, by name."""


def _in_order(layers: dict[str, nn.Module]) -> nn.Sequential:
    """Make a sequence of named layers."""
    sequence = nn.Sequential()
    for name, layer in layers.items():
        sequence.add_module(name, layer)
    return sequence
