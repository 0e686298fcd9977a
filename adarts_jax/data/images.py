"""Labelled images in memory, and the checks that belong to them.

Arrays and integers only: no file is opened here and nothing is put on a device.
"""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np

from adarts_jax.errors import UserError

MIN_CLASSES = 2

# From the labels of a whole split to the images of it that are wanted, ascending.
Select = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """One split of a labelled image data set, decoded and held in host memory.

    Attributes:
      images: uint8 (batch, height, width, channel), values 0 to 255.
      labels: int32 (batch,), positions in ``class_names``.
      class_names: one name per class; the same for every split of a data set, also
        where a split holds no image of some class.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check shapes, types and the label range.

        Raises:
          UserError: arrays do not fit together, or a label has no class.
        """
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise UserError(
                f"images of shape {self.images.shape} and type {self.images.dtype}: "
                "expected uint8 of shape (images, height, width, channels)"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != np.int32:
            raise UserError(
                f"labels of shape {self.labels.shape} and type {self.labels.dtype}: "
                f"expected int32 of shape ({len(self.images)},), one per image"
            )
        check_labels(self.labels, self.num_classes)

    @property
    def num_classes(self) -> int:
        """Number of classes, whether or not this split shows all of them."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width (pixels) and channels of every image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)


def keep(data: ImageData, indices: np.ndarray) -> ImageData:
    """Return some of the images, and all classes.

    Args:
      data: images.
      indices: ascending.
    """
    if len(indices) == len(data):  # all of them: no copy
        return data
    images, labels = data.images[indices], data.labels[indices]
    return dataclasses.replace(data, images=images, labels=labels)


def center_crop(data: ImageData, size: tuple[int, int]) -> ImageData:
    """Return the middle of every image, as testing on ImageNet has it.

    Args:
      data: images of at least that size; they are not copied.
      size: height and width of the result, pixels.
    """
    height, width, _ = data.image_shape
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    middle = data.images[:, top : top + size[0], left : left + size[1]]
    return dataclasses.replace(data, images=middle)


def check_labels(labels: np.ndarray, num_classes: int) -> None:
    """Check that every label names a class.

    Args:
      labels: integers, any shape.
      num_classes: number of classes.

    Raises:
      UserError: a label lies outside ``0 .. num_classes - 1``.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise UserError(
            f"label {labels.flat[wrong[0]]} of image {wrong[0]} is out of range: with "
            f"{num_classes} classes labels go from 0 to {num_classes - 1} "
            f"({wrong.size} such labels); correct them or leave these images out"
        )


def check_classes(data: ImageData, what: str) -> None:
    """Check that there is something to tell apart.

    Args:
      data: images with labels.
      what: name of the data for the message, such as ``"folder 'flowers'"``.

    Raises:
      UserError: no image at all, or fewer than two classes.
    """
    if not len(data):
        raise UserError(f"{what} holds no image; add images or choose another split")
    if data.num_classes < MIN_CLASSES:
        raise UserError(
            f"{what} has one class ({data.class_names[0]!r}); classification needs at "
            f"least {MIN_CLASSES}, each with images of its own"
        )


def check_batch(num_examples: int, batch_size: int, what: str) -> None:
    """Check that a split fills at least one batch.

    Args:
      num_examples: images available.
      batch_size: images per step.
      what: name of the split for the message, such as ``"weight split"``.

    Raises:
      UserError: the split is smaller than one batch.
    """
    if num_examples < batch_size:
        raise UserError(
            f"batch_size={batch_size} is larger than the {num_examples} images of the "
            f"{what}; use batch_size={max(num_examples, 1)} or less, or more images"
        )


def check_image_size(height: int, width: int, *, num_reductions: int = 2) -> None:
    """Check that an image can be halved as often as the network halves it.

    Each reduction halves height and width, by taking even and odd pixels apart, so a
    side must be a multiple of ``2 ** num_reductions``: 4, 8, 12, ... for the search
    network and the CIFAR stem (two reductions; at the smallest size one pixel remains),
    32, 64, ... for the ImageNet stem (three more).

    Args:
      height: pixels before the stem.
      width: pixels before the stem.
      num_reductions: halvings of the resolution on the way to the last cell.

    Raises:
      UserError: a side is too small or leaves a remainder.
    """
    unit = 2**num_reductions
    if min(height, width) < unit:
        raise UserError(
            f"images of {height}x{width} pixels are too small for {num_reductions} "
            f"reductions, which need at least {unit}x{unit}; set image_size={unit} or "
            "a larger multiple"
        )
    if height % unit or width % unit:
        nearest = max(height, width) // unit * unit
        raise UserError(
            f"images of {height}x{width} pixels cannot be halved {num_reductions} "
            f"times without remainder; set image_size={nearest} or another multiple "
            f"of {unit}"
        )


def fingerprint(data: ImageData) -> str:
    """Return a SHA-256 over pixels, labels and class names, for the manifest.

    Two data sets have the same fingerprint exactly if a network could not tell them
    apart, whatever files they came from.
    """
    digest = hashlib.sha256()
    digest.update(repr((data.images.shape, data.class_names)).encode())
    digest.update(np.ascontiguousarray(data.images).data)
    digest.update(np.ascontiguousarray(data.labels, dtype="<i4").data)
    return digest.hexdigest()
