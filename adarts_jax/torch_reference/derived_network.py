"""Derived networks (CIFAR and ImageNet layout) in plain PyTorch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adarts_jax.torch_reference.attention import ATTENTIONS
from adarts_jax.torch_reference.primitives import (
    FactorizedReduce,
    ReluConvBn,
    primitive,
)

# Operation, source and, with Att-DARTS, the attention that follows.
Edge = tuple[str, int] | tuple[str, int, str | None]


class Genotype(NamedTuple):
    """The four fields a genotype has in every dialect.

    Attributes:
      normal: two (operation, source) pairs per node, normal cells; with Att-DARTS
        the attention is third.
      normal_concat: states joined into the output of a normal cell.
      reduce: as ``normal``, for reduction cells.
      reduce_concat: as ``normal_concat``, for reduction cells.
    """

    normal: Sequence[Edge]
    normal_concat: Sequence[int]
    reduce: Sequence[Edge]
    reduce_concat: Sequence[int]


def drop_path(x: Tensor, drop_probability: float) -> Tensor:
    """Zero whole samples of a path and scale up the survivors.

    Args:
      x: (B, C, H, W).
      drop_probability: in [0, 1).
    """
    keep = 1.0 - drop_probability
    mask = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device)
    return x * mask.bernoulli_(keep) / keep


class DerivedCell(nn.Module):
    """A cell with two operations per node."""

    def __init__(
        self,
        genotype: Genotype,
        channels_in: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        reduction_before: bool,
    ) -> None:
        super().__init__()
        edges = genotype.reduce if reduction else genotype.normal
        concat = genotype.reduce_concat if reduction else genotype.normal_concat
        adapter = FactorizedReduce if reduction_before else ReluConvBn
        self.preprocess0 = adapter(channels_in[0], channels, affine=True)
        self.preprocess1 = ReluConvBn(channels_in[1], channels, affine=True)
        operations = nn.ModuleList(
            primitive(op, channels, 2 if reduction and source < 2 else 1, affine=True)
            for op, source, *_ in edges
        )
        attentions = [attention for _, _, *rest in edges for attention in rest]
        self.attends = any(attentions)
        if self.attends:
            self._first_layers = operations
            self._second_layers = nn.ModuleList(
                ATTENTIONS[name or "Identity"](channels) for name in attentions
            )
        else:
            self._ops = operations
        self.sources = [edge[1] for edge in edges]
        self.concat_nodes = list(concat)
        self.channels_out = len(self.concat_nodes) * channels

    def forward(self, s0: Tensor, s1: Tensor, drop_probability: float) -> Tensor:
        """Two earlier outputs to the concatenation of the listed nodes."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for first in range(0, len(self.sources), 2):
            states.append(
                self._path(first, states, drop_probability)
                + self._path(first + 1, states, drop_probability)
            )
        return torch.cat([states[node] for node in self.concat_nodes], dim=1)

    def _path(
        self, index: int, states: list[Tensor], drop_probability: float
    ) -> Tensor:
        layers = [(self._first_layers if self.attends else self._ops)[index]]
        layers += [self._second_layers[index]] if self.attends else []
        out = states[self.sources[index]]
        for layer in layers:
            out = layer(out)
        # Plain skip connections always survive, so that no sample loses a node.
        plain = any(isinstance(layer, nn.Identity) for layer in layers)
        return (
            out
            if plain or drop_probability == 0.0
            else drop_path(out, drop_probability)
        )


class AuxiliaryHead(nn.Module):
    """Second classifier on the features at two thirds of the depth.

    The ImageNet version has a smaller pooling stride and no norm after its second
    convolution.
    """

    def __init__(self, channels: int, num_classes: int, *, imagenet: bool) -> None:
        super().__init__()
        features: list[nn.Module] = [
            nn.ReLU(),
            nn.AvgPool2d(5, stride=2 if imagenet else 3, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
        ]
        features += [] if imagenet else [nn.BatchNorm2d(768)]
        self.features = nn.Sequential(*features, nn.ReLU())
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 8, 8), or (B, C, 7, 7) for ImageNet, to logits (B, class).

        The originals know no larger maps; of these all positions are averaged.
        """
        return self.classifier(self.features(x).mean((2, 3)))


class DerivedNetwork(nn.Module):
    """Cells of a genotype behind a stem; the two subclasses differ in the stem.

    Attributes:
      drop_path_prob: probability of dropping a path in train mode; the training loop
        sets it.
    """

    imagenet: bool

    def __init__(
        self,
        genotype: Genotype,
        init_channels: int,
        num_cells: int,
        num_classes: int,
        *,
        auxiliary: bool,
        image_channels: int = 3,
    ) -> None:
        """Build the network.

        Args:
          genotype: what the cells compute.
          init_channels: width C of the first cell.
          num_cells: number of cells L; reductions at L//3 and 2L//3.
          num_classes: outputs of the heads.
          auxiliary: whether there is a second head after cell 2L//3.
          image_channels: channels of the images.
        """
        super().__init__()
        self.drop_path_prob = 0.0
        width = self._build_stem(image_channels, init_channels)
        reductions = (num_cells // 3, 2 * num_cells // 3)
        self.auxiliary_cell = 2 * num_cells // 3
        channels, previous = init_channels, (width, width)
        reduction_before = self.imagenet  # the second ImageNet stem halves the image
        self.cells = nn.ModuleList()
        self.auxiliary_head: AuxiliaryHead | None = None
        for index in range(num_cells):
            reduction = index in reductions
            channels *= 2 if reduction else 1
            cell = DerivedCell(
                genotype,
                previous,
                channels,
                reduction=reduction,
                reduction_before=reduction_before,
            )
            self.cells.append(cell)
            reduction_before, previous = reduction, (previous[1], cell.channels_out)
            if auxiliary and index == self.auxiliary_cell:
                self.auxiliary_head = AuxiliaryHead(
                    previous[1], num_classes, imagenet=self.imagenet
                )
        self.classifier = nn.Linear(previous[1], num_classes)

    def _build_stem(self, image_channels: int, init_channels: int) -> int:
        """Create the stem layers and return their width."""
        raise NotImplementedError

    def _stem_states(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images to logits (B, class) and, in train mode, the auxiliary logits."""
        s0, s1 = self._stem_states(x)
        auxiliary = None
        drop_probability = self.drop_path_prob if self.training else 0.0
        for index, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, drop_probability)
            if index == self.auxiliary_cell and self.training:
                head = self.auxiliary_head
                auxiliary = None if head is None else head(s1)
        return self.classifier(s1.mean((2, 3))), auxiliary


class CifarNetwork(DerivedNetwork):
    """Layout for small images: one 3x3 convolution as stem, resolution kept."""

    imagenet = False

    def _build_stem(self, image_channels: int, init_channels: int) -> int:
        width = 3 * init_channels
        self.stem = nn.Sequential(
            nn.Conv2d(image_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        return width

    def _stem_states(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s0 = s1 = self.stem(x)
        return s0, s1


class ImageNetNetwork(DerivedNetwork):
    """Layout for 224x224 images: two stems divide the resolution by 4 and by 8."""

    imagenet = True

    def _build_stem(self, image_channels: int, init_channels: int) -> int:
        half = init_channels // 2
        self.stem0 = nn.Sequential(
            nn.Conv2d(image_channels, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, init_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(init_channels),
        )
        self.stem1 = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(init_channels, init_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(init_channels),
        )
        return init_channels

    def _stem_states(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s0 = self.stem0(x)
        return s0, self.stem1(s0)
