"""Unlabelled images in, predictions out: files of the program ``predict``."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adarts_jax.data import folder, pictures
from adarts_jax.engine import files
from adarts_jax.engine.evaluation import HostLogits
from adarts_jax.errors import UserError
from adarts_jax.model_spec import ModelSpec

ARRAY_SUFFIX = ".npy"
OUTPUT_SUFFIX = ".npz"
# Normalised images stay well below; pixels from 0 to 255 do not.
_UNUSUAL_VALUE = 30.0
_NUMPY_MAGIC = b"\x93NUMPY"

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Unlabelled:
    """Images without labels.

    Attributes:
      images: uint8 pixels, or float32 images that are normalised already; NHWC.
      files: a name for every image.
    """

    images: np.ndarray
    files: tuple[str, ...]

    @property
    def is_normalised(self) -> bool:
        """Whether the model's normalisation is done."""
        return self.images.dtype == np.float32


def read_images(place: Path, spec: ModelSpec, *, resize: bool) -> Unlabelled:
    """Read pictures or an array in the form that a model takes.

    Args:
      place: folder of pictures in any layout, one picture, or an ``.npy`` file.
      spec: of the model.
      resize: whether to stretch pictures of another size.

    Raises:
      UserError: nothing there, unreadable pictures (up to ten are named), another
        size, type or number of channels, values that are not finite.
    """
    if place.suffix.lower() == ARRAY_SUFFIX and not place.is_dir():
        if resize:
            raise UserError("resize is for pictures; arrays are taken as they are")
        return _read_array(place, spec)
    found = folder.find_pictures(place)
    root = place if place.is_dir() else place.parent
    names = tuple(path.relative_to(root).as_posix() for path in found)
    return Unlabelled(_read_pictures(found, names, spec, resize=resize), names)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Check that predictions may be written to a file.

    Raises:
      UserError: it exists, has another suffix, or there is no folder for it.
    """
    if path.suffix != OUTPUT_SUFFIX:
        raise UserError(f"out={str(path)!r} must end in {OUTPUT_SUFFIX}")
    if path.is_dir() or (path.exists() and not overwrite):
        raise UserError(f"{str(path)!r} exists; choose another file, or --overwrite")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {str(path.parent)!r} to write to; make it")


def write_predictions(
    path: Path, logits: HostLogits, names: Sequence[str], class_names: Sequence[str]
) -> None:
    """Write ``logits``, ``labels`` (predicted classes), ``files``, ``class_names``.

    Args:
      path: ends in ``.npz``; replaced in one move.
      logits: one row per image.
      names: one per image.
      class_names: one per logit.

    Raises:
      UserError: the file cannot be written.
    """

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(
                file,
                logits=logits,
                labels=logits.argmax(1).astype(np.int32),
                files=np.array(names),
                class_names=np.array(class_names),
            )

    try:
        files.replace(path, write)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error}") from error


def _read_pictures(
    found: Sequence[Path], names: Sequence[str], spec: ModelSpec, *, resize: bool
) -> np.ndarray:
    height, width = spec.image_size
    if spec.image_channels not in (1, 3):
        raise UserError(
            f"the model takes images of {spec.image_channels} channels, pictures have "
            "1 or 3; give an .npy array"
        )
    if resize and height != width:
        raise UserError(
            f"resize makes squares, the model takes {height}x{width} pixels; bring "
            "the pictures to that size first"
        )
    return pictures.decode_all(
        zip(names, found, strict=True),
        len(found),
        channels=spec.image_channels,
        image_size=height if resize else None,
        required_size=(height, width),
        way_out="repair or remove them, or --resize those of another size",
    )


def _read_array(path: Path, spec: ModelSpec) -> Unlabelled:
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise UserError(f"{str(path)!r} is no ordinary file; give an .npy file")
    try:
        with path.open("rb") as file:
            if file.read(len(_NUMPY_MAGIC)) != _NUMPY_MAGIC:
                raise UserError(f"{str(path)!r} is no .npy file; use numpy.save")
        # Mapped: only the batches in work are in memory.
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot read {str(path)!r}: {reason}; give a folder or another file"
        ) from error
    except UserError:
        raise
    except (ValueError, EOFError, SyntaxError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{str(path)!r} is damaged or cut short: {reason}; write it again with "
            "numpy.save"
        ) from error
    _check_array(images, path, spec)
    return Unlabelled(images, tuple(f"{path.name}[{i}]" for i in range(len(images))))


def _check_array(images: np.ndarray, path: Path, spec: ModelSpec) -> None:
    mean, std = spec.normalization_mean, spec.normalization_std
    what = f"{str(path)!r} of shape {images.shape} and type {images.dtype}"
    if images.dtype != np.float32:
        raise UserError(
            f"{what}: expected float32, normalised: (pixels / 255 - mean) / std with "
            f"mean={mean}, std={std}"
        )
    wanted = (*spec.image_size, spec.image_channels)
    if images.ndim != 4 or images.shape[1:] != wanted or not len(images):
        first = images.ndim == 4 and (*images.shape[2:], images.shape[1]) == wanted
        raise UserError(
            f"{what}: the model takes (images, height, width, channels) = (any, "
            f"{', '.join(map(str, wanted))})"
            + ("; use array.transpose(0, 2, 3, 1)" if first else "")
        )
    largest = 0.0
    for index, image in enumerate(images):
        peak = float(np.abs(image).max())
        if not np.isfinite(peak):
            raise UserError(
                f"{what}: image {index} has values that are not finite; correct or "
                "remove it"
            )
        largest = max(largest, peak)
    if largest > _UNUSUAL_VALUE:
        _logger.warning(
            "%s has values up to %.4g, unusual for normalised images",
            os.fspath(path),
            largest,
        )
