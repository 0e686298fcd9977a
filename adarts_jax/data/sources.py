"""The one way in to image data: a source by name, its split as arrays.

Which reader serves which source; the readers know their formats.
"""

import dataclasses
from pathlib import Path
from typing import Literal, get_args

from adarts_jax.data import digits, folder, images, npz, pictures, tfds
from adarts_jax.data.images import ImageData, Select, check_classes
from adarts_jax.errors import UserError, did_you_mean

Source = Literal["digits", "tfds", "folder", "npz"]
SOURCES: tuple[str, ...] = get_args(Source)


def load(
    source: str,
    *,
    split: str = "train",
    data_dir: Path | str | None = None,
    name: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    select: Select | None = None,
) -> ImageData:
    """Load one split of a data set into memory.

    ========  ===================================  ==================  ==============
    source    data_dir                             name                splits
    ========  ===================================  ==================  ==============
    digits    not used                             not used            train, test
    tfds      prepared data sets; None: the TFDS   data set, such as   as prepared
              default folder                       ``"cifar10"``
    folder    ``data_dir/split/class/*.png|jpg``   sub-folder of       folders found
                                                   data_dir, or None
    npz       the file, or its folder              file in data_dir,   key prefixes
                                                   or None
    ========  ===================================  ==================  ==============

    Args:
      source: one of `SOURCES`.
      split: part of the data set.
      data_dir: where the data is; ``~`` stands for the home folder.
      name: which data set in ``data_dir``.
      image_size: side in pixels; images are stretched to a square of it. None keeps
        the stored size.
      channels: 1 (luminance) or 3 (RGB) for pictures of ``tfds`` and ``folder``; None
        is what the data set declares, 3 for folders. Arrays keep the channels they
        have; asking for another number is an error.
      select: which images are wanted; None wants all. Of ``tfds`` and ``folder`` no
        other is decoded.

    Returns:
      Images with at least two classes. Call it again for another split: the classes
      are the same.

    Raises:
      UserError: whatever is wrong with the arguments or the data.
    """
    if source not in SOURCES:
        raise UserError(
            f"unknown data source {source!r}, expected one of {', '.join(SOURCES)}"
            f"{did_you_mean(source, SOURCES)}"
        )
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size={image_size} must be a positive number of pixels")
    if channels not in (None, 1, 3):
        raise UserError(f"channels={channels} must be 1 (luminance) or 3 (RGB)")
    place = None if data_dir is None else Path(data_dir).expanduser()
    if source == "digits":
        data = _load_digits(split, place, name)
    elif source == "tfds":
        data = _load_tfds(split, place, name, image_size, channels, select)
    elif source == "folder":
        root = _require_place(source, place) / (name or "")
        data = folder.load_folder(
            root,
            split=split,
            channels=channels or 3,
            image_size=image_size,
            select=select,
        )
    else:
        data = npz.load_npz(_require_place(source, place) / (name or ""), split=split)
    if select is not None and source in ("digits", "npz"):
        data = images.keep(data, select(data.labels))
    data = _fit(data, source, image_size, channels)
    check_classes(data, f"{source} data, split {split!r},")
    return data


def _load_digits(split: str, place: Path | None, name: str | None) -> ImageData:
    # Digits instead of the user's own pictures would look like success.
    if place is not None or name is not None:
        raise UserError(
            f"source 'digits' is built in, but data_dir={str(place or '')!r} or "
            f"name={name or ''!r} is given; set source to folder, npz or tfds"
        )
    return digits.load_digits(split=split)


def _load_tfds(
    split: str,
    place: Path | None,
    name: str | None,
    image_size: int | None,
    channels: int | None,
    select: Select | None,
) -> ImageData:
    if not name:
        raise UserError("source 'tfds' needs the name of a data set: name='cifar10'")
    return tfds.load_tfds(
        name,
        split=split,
        data_dir=place,
        channels=channels,
        image_size=image_size,
        select=select,
    )


def _require_place(source: str, place: Path | None) -> Path:
    if place is None:
        raise UserError(f"source {source!r} needs data_dir, the place of the data")
    return place


def _fit(
    data: ImageData, source: str, image_size: int | None, channels: int | None
) -> ImageData:
    """Bring decoded arrays to the size asked for; pictures have it already."""
    _, _, stored = data.image_shape
    if channels not in (None, stored):
        raise UserError(
            f"channels={channels}: {source} data has {stored} and is used as it is; "
            f"leave channels out or set {stored}"
        )
    if image_size is None:
        return data
    resized = pictures.resize_images(data.images, image_size)
    return dataclasses.replace(data, images=resized)
