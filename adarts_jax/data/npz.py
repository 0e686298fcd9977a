"""Arrays in a NumPy ``.npz`` file; pickled objects are never read."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from adarts_jax.data.images import ImageData, check_labels
from adarts_jax.errors import UserError

KEYS = "expected '<split>_images' and '<split>_labels', or 'images' and 'labels'"
# Splits that a file with the plain keys may stand for.
PLAIN_SPLIT = "train"
MAX_UNNAMED_CLASSES = 100_000


def load_npz(file: Path, *, split: str) -> ImageData:
    """Load one split of an ``.npz`` file.

    Keys are ``<split>_images`` and ``<split>_labels``. A file with the plain keys
    ``images`` and ``labels`` is a training set and nothing else: it is never used as a
    test set by accident. An optional ``class_names`` (strings) names the classes;
    otherwise they are numbered up to the largest label of any split in the file.

    Images are uint8, or floating point in [0, 1] (rounded to 256 levels), of shape
    (images, height, width, channels) or (images, height, width). Labels are integers
    from 0.

    Args:
      file: path of the file.
      split: ``"train"``, ``"test"`` or any other prefix used in the file.

    Returns:
      Images with at least one channel axis; any number of channels.

    Raises:
      UserError: no such file, not an ``.npz``, missing keys, wrong types or shapes,
        labels out of range.
    """
    if not file.is_file():
        raise UserError(f"{str(file)!r} is not an existing .npz file; {KEYS}")
    if not zipfile.is_zipfile(file):
        raise UserError(f"{str(file)!r} is not an .npz file (or cut short); {KEYS}")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return _read_split(arrays, split)
    except UserError as error:
        raise UserError(f"{str(file)!r}: {error}") from error
    except (OSError, ValueError, EOFError, MemoryError, NotImplementedError) as error:
        raise _unreadable(file, error) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(file, error) from error


def _read_split(arrays: Mapping[str, np.ndarray], split: str) -> ImageData:
    prefix = f"{split}_"
    if split == PLAIN_SPLIT and prefix + "images" not in arrays:
        prefix = ""
    image_key, label_key = prefix + "images", prefix + "labels"
    for key in (image_key, label_key):
        if key not in arrays:
            raise UserError(
                f"no array {key!r} for split {split!r}, only "
                f"{', '.join(map(repr, sorted(arrays)))}; {KEYS}"
            )
    labels = _read_labels(arrays, label_key)
    class_names = _read_class_names(arrays)
    check_labels(labels, len(class_names))
    images = _to_uint8(_to_nhwc(_read(arrays, image_key), image_key), image_key)
    return ImageData(images, labels.astype(np.int32), class_names)


def _read(arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    array = arrays[key]
    # NumPy hands out members that are no arrays as bytes.
    if not isinstance(array, np.ndarray):
        raise UserError(f"{key!r} is not an array; write the file with numpy.savez")
    return array


def _read_labels(arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    labels = _read(arrays, key)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{key!r} of shape {labels.shape} and type {labels.dtype}: expected one "
            "integer per image"
        )
    return labels.astype(np.int64)


def _read_class_names(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Return the stored names, or numbers up to the largest label of any split."""
    if "class_names" in arrays:
        names = _read(arrays, "class_names")
        if names.ndim != 1 or names.dtype.kind != "U":
            raise UserError("'class_names' must be a list of strings")
        return tuple(map(str, names))
    keys = [key for key in arrays if key == "labels" or key.endswith("_labels")]
    largest = [_read_labels(arrays, key).max(initial=-1) for key in keys]
    if max(largest) >= MAX_UNNAMED_CLASSES:
        raise UserError(
            f"label {max(largest)}: labels beyond {MAX_UNNAMED_CLASSES - 1} need "
            "'class_names'; number the classes from 0 without gaps"
        )
    return tuple(map(str, range(int(max(largest)) + 1)))


def _to_nhwc(images: np.ndarray, key: str) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise UserError(
            f"{key!r} of shape {images.shape}: expected (images, height, width, "
            "channels) or (images, height, width)"
        )
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise UserError(
            f"{key!r} of shape {images.shape} has the channels first; store "
            "images.transpose(0, 2, 3, 1)"
        )
    return images


def _to_uint8(images: np.ndarray, key: str) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise UserError(
            f"{key!r} of type {images.dtype}: expected uint8, or floating point in "
            "[0, 1]; store images.astype('uint8') if values go from 0 to 255"
        )
    levels = np.empty(images.shape, np.uint8)
    for index, image in enumerate(images):
        # Written so that NaN fails too.
        if not (image.min() >= 0 and image.max() <= 1):
            raise UserError(
                f"{key!r}: image {index} has values from {image.min():.4g} to "
                f"{image.max():.4g}, outside [0, 1]; store pixels before any "
                "normalisation, as floating point in [0, 1] or as uint8"
            )
        levels[index] = np.round(image.astype(np.float32) * 255)
    return levels


def _unreadable(file: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"cannot read {str(file)!r}: {reason}; write it again with numpy.savez, as "
        "plain arrays"
    )
