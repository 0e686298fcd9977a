"""What must hold before a derived network is built or shown an image."""

from adarts_jax.data.images import check_image_size
from adarts_jax.errors import UserError
from adarts_jax.networks.auxiliary import smallest_map
from adarts_jax.space import topology
from adarts_jax.space.stack import Stem


def check_size(
    *, init_channels: int, num_cells: int, num_classes: int, stem: Stem
) -> None:
    """Check the numbers that describe a network.

    Raises:
      UserError: one of them is out of range.
    """
    sizes = {
        "init_channels": (init_channels, topology.MAX_CHANNELS),
        "num_cells": (num_cells, topology.MAX_CELLS),
        "num_classes": (num_classes, topology.MAX_CLASSES),
    }
    for name, (value, limit) in sizes.items():
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
        if value > limit:
            raise UserError(f"{name}={value} must be at most {limit}")
    if stem == "imagenet" and init_channels % 2:
        raise UserError(
            f"init_channels={init_channels} must be even with the ImageNet stem; try "
            f"{init_channels + 1}"
        )


def check_resolution(size: tuple[int, int], output_stride: int) -> None:
    """Check that images can be halved as often as the network halves them.

    Args:
      size: height and width in pixels.
      output_stride: pixels of the image per pixel of the last map, a power of 2.

    Raises:
      UserError: they are too small, or leave a remainder.
    """
    check_image_size(*size, num_reductions=output_stride.bit_length() - 1)


def check_auxiliary(size: tuple[int, int], stride: int, cell: int, stem: Stem) -> None:
    """Check that the map under the auxiliary head is large enough.

    Args:
      size: height and width of the images in pixels.
      stride: pixels of the image per pixel of the map.
      cell: index of the cell whose output the map is.
      stem: layout of the network.

    Raises:
      UserError: it is too small; says what it needs.
    """
    side = smallest_map(stem)
    height, width = size
    if min(height, width) < side * stride:
        raise UserError(
            f"the auxiliary head needs a map of at least {side}x{side} pixels after "
            f"cell {cell}, but images of {height}x{width} leave "
            f"{height // stride}x{width // stride}; use images of at least "
            f"{side * stride}x{side * stride} or leave the head out (auxiliary=false)"
        )


def may_drop(rate: object) -> bool:
    """Whether drop path can happen: not with a plain 0, which needs no randomness.

    Raises:
      UserError: a plain number outside [0, 1); a traced one cannot be checked.
    """
    if not isinstance(rate, int | float):
        return True
    if not 0 <= rate < 1:
        raise UserError(
            f"drop_path_rate={rate} must be at least 0 and below 1, such as 0.2"
        )
    return rate > 0
