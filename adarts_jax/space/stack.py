"""The stack of cells: which cell sits where, how wide and how large its inputs are.

Shared by the costs of derived and search networks. Sizes are (height, width).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adarts_jax.space import topology
from adarts_jax.space.operation_cost import (
    Cost,
    conv_bn,
    factorized_reduce,
    halved,
    total,
)

Stem = Literal["cifar", "imagenet"]
Size = tuple[int, int]

IMAGE_CHANNELS = 3
_DEFAULT_SIDE = {"cifar": 32, "imagenet": 224}


@dataclass(frozen=True)
class CellPlace:
    """What a cell finds in front of it.

    Attributes:
      cell_type: normal or reduce.
      after_reduction: whether state 0 has twice the size of state 1.
      channels: channels of every intermediate node.
      channels_in: channels of the states 0 and 1 before preprocessing.
      sizes_in: sizes of the states 0 and 1 before preprocessing.
    """

    cell_type: topology.CellType
    after_reduction: bool
    channels: int
    channels_in: tuple[int, int]
    sizes_in: tuple[Size, Size]

    @property
    def stride(self) -> int:
        """Stride of the edges that leave the input states."""
        return 2 if self.cell_type == "reduce" else 1

    @property
    def size_out(self) -> Size:
        """Size of the intermediate nodes and of the output."""
        height, width = self.sizes_in[1]
        return halved(height, self.stride), halved(width, self.stride)

    def edge_from(self, source: int) -> tuple[int, int, int]:
        """Return stride, height and width an operation meets on an edge."""
        if source < topology.NUM_INPUTS:
            return (self.stride, *self.sizes_in[1])
        return (1, *self.size_out)


def image_size(stem: Stem, size: int | Size | None) -> Size:
    """Return height and width; the default is that of the stem's data set."""
    side = _DEFAULT_SIDE[stem] if size is None else size
    return (side, side) if isinstance(side, int) else side


def place_cells(
    *,
    num_cells: int,
    init_channels: int,
    stem: Stem,
    stem_channels: int,
    concat: Mapping[topology.CellType, int],
    size: Size,
) -> list[CellPlace]:
    """Walk down the stack; channels double and the size halves at each reduction.

    Args:
      num_cells: cells in all.
      init_channels: channels of the nodes before the first reduction.
      stem: layout in front of the cells.
      stem_channels: channels of both input states of the first cell.
      concat: number of concatenated states per cell type.
      size: size of the image.
    """
    sizes, after_reduction = _stem_sizes(stem, size), stem == "imagenet"
    channels, channels_in = init_channels, (stem_channels, stem_channels)
    reductions = topology.reduction_cells(num_cells)
    places = []
    for index in range(num_cells):
        cell_type: topology.CellType = "reduce" if index in reductions else "normal"
        channels *= 2 if cell_type == "reduce" else 1
        place = CellPlace(cell_type, after_reduction, channels, channels_in, sizes)
        places.append(place)
        channels_in = (channels_in[1], channels * concat[cell_type])
        sizes = (sizes[1], place.size_out)
        after_reduction = cell_type == "reduce"
    return places


def stem_cost(stem: Stem, channels: int, size: Size) -> Cost:
    """Return the cost of the layers in front of the cells; they are always affine."""
    if stem == "cifar":
        return conv_bn(IMAGE_CHANNELS, channels, 1, *size, kernel=3)
    half, (state0, _) = _strided(size), _stem_sizes(stem, size)
    return total(
        [
            conv_bn(IMAGE_CHANNELS, channels // 2, 2, *size, kernel=3),
            conv_bn(channels // 2, channels, 2, *half, kernel=3),
            conv_bn(channels, channels, 2, *state0, kernel=3),
        ]
    )


def preprocess_cost(place: CellPlace, *, affine: bool) -> Cost:
    """Return the cost of bringing both inputs of a cell to its width and size."""
    (channels0, channels1), (size0, size1) = place.channels_in, place.sizes_in
    if place.after_reduction:
        first = factorized_reduce(channels0, place.channels, 2, *size0, affine=affine)
    else:
        first = conv_bn(channels0, place.channels, 1, *size0, affine=affine)
    second = conv_bn(channels1, place.channels, 1, *size1, affine=affine)
    return total([first, second])


def _stem_sizes(stem: Stem, size: Size) -> tuple[Size, Size]:
    """Return the sizes of the input states of the first cell."""
    if stem == "cifar":
        return size, size
    state0 = _strided(_strided(size))
    return state0, _strided(state0)


def _strided(size: Size) -> Size:
    return halved(size[0], 2), halved(size[1], 2)
