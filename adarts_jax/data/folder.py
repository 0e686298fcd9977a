"""Pictures in folders: ``root/split/class/*.png|jpg|jpeg``.

Finds files and names classes; decoding is the business of `pictures`.
"""

import logging
import unicodedata
from pathlib import Path

import numpy as np

from adarts_jax.data import pictures
from adarts_jax.data.images import ImageData, Select
from adarts_jax.errors import UserError, did_you_mean

SUFFIXES = (".png", ".jpg", ".jpeg")
_OTHER_PICTURES = (".bmp", ".gif", ".heic", ".tif", ".tiff", ".webp")
LAYOUT = "expected <data_dir>/<split>/<class>/*.png|jpg|jpeg"

_logger = logging.getLogger(__name__)


def load_folder(
    root: Path,
    *,
    split: str,
    channels: int = 3,
    image_size: int | None = None,
    select: Select | None = None,
) -> ImageData:
    """Load one split of a folder data set.

    Classes are the sub-folders of *all* splits, in the order of their names, so labels
    mean the same everywhere even where a split lacks a class (which is logged). Names
    are brought to Unicode form NFC: folders copied from macOS then match. Suffixes
    count in any case; hidden files and other files are passed over.

    Args:
      root: folder of the splits.
      split: name of a folder in ``root``.
      channels: 3 for RGB (default, also for grey pictures), 1 for luminance.
      image_size: side in pixels to which every picture is stretched; None keeps the
        size, which must then be the same for all.
      select: which pictures are wanted; no other file is opened. None wants all.

    Returns:
      Pictures ordered by class, then by file name.

    Raises:
      UserError: missing or empty folder, unknown split, a class folder without
        pictures, pictures that cannot be read, pictures of different sizes.
    """
    splits = _find_splits(root, split)
    class_names = tuple(sorted({name for s in splits.values() for name in s}))
    found = splits[split]
    if not found:
        raise UserError(f"{str(root / split)!r} has no class folder; {LAYOUT}")
    if empty := sorted(name for name, files in found.items() if not files):
        raise UserError(
            f"no .png, .jpg or .jpeg picture of class {', '.join(map(repr, empty))} in "
            f"{str(root / split)!r}; add pictures or remove the folder"
        )
    if missing := [name for name in class_names if name not in found]:
        _logger.warning("split %r has no picture of %s", split, ", ".join(missing))
    files = [file for mine in found.values() for file in mine]
    counts = [len(mine) for mine in found.values()]
    labels = np.repeat([class_names.index(name) for name in found], counts)
    labels = labels.astype(np.int32)
    if select is not None:
        wanted = select(labels)
        files, labels = [files[index] for index in wanted], labels[wanted]
    images = pictures.decode_all(
        ((str(file), file) for file in files),
        len(files),
        channels=channels,
        image_size=image_size,
    )
    return ImageData(images, labels, class_names)


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures directly in a folder, by name; hidden files are left out."""
    return [
        entry
        for entry in _visible(folder)
        if entry.suffix.lower() in SUFFIXES and entry.is_file()
    ]


def find_pictures(place: Path) -> list[Path]:
    """Return one picture, or all in a folder and the folders below, by path.

    Hidden files and folders are left out; so are other kinds of pictures, which is
    logged.

    Raises:
      UserError: nothing there, or no picture in it.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(f"{str(place)!r} does not exist; give a folder or a picture")
    found, others, folders = [], 0, [place]
    while folders:
        entries = _visible(folders.pop())
        # Links to folders may lead in circles.
        folders += [e for e in entries if e.is_dir() and not e.is_symlink()]
        files = [e for e in entries if e.is_file()]
        found += [e for e in files if e.suffix.lower() in SUFFIXES]
        others += sum(e.suffix.lower() in _OTHER_PICTURES for e in files)
    if others:
        _logger.warning(
            "%d pictures in %r are no .png or .jpg and are passed over",
            others,
            str(place),
        )
    if not found:
        raise UserError(
            f"no .png, .jpg or .jpeg picture in {str(place)!r} or below; give another "
            "folder"
        )
    return sorted(found)


def _find_splits(root: Path, split: str) -> dict[str, dict[str, list[Path]]]:
    """Return split -> class -> pictures, after checking that ``split`` is there."""
    if not root.is_dir():
        raise UserError(f"data_dir {str(root)!r} is not an existing folder; {LAYOUT}")
    names = [entry.name for entry in _visible(root) if entry.is_dir()]
    if not names:
        raise UserError(f"data_dir {str(root)!r} has no folders in it; {LAYOUT}")
    if split not in names:
        raise UserError(
            f"no split {split!r} in {str(root)!r}, only {_shorten(names)}"
            f"{did_you_mean(split, names)}; {LAYOUT}"
        )
    return {name: _find_classes(root / name) for name in names}


def _find_classes(folder: Path) -> dict[str, list[Path]]:
    classes: dict[str, list[Path]] = {}
    for entry in _visible(folder):
        if entry.is_dir():
            name = unicodedata.normalize("NFC", entry.name)
            classes.setdefault(name, []).extend(list_pictures(entry))
    return dict(sorted(classes.items()))


def _visible(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot list {str(folder)!r}: {error.strerror}") from error
    return [entry for entry in entries if not entry.name.startswith((".", "__"))]


def _shorten(names: list[str], limit: int = 10) -> str:
    """List names for a message."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
