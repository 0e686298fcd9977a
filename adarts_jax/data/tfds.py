"""Data sets prepared by TensorFlow Datasets, read without TensorFlow.

Reads what is on disk and nothing else: no download, no preparation, no network.
"""

import functools
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adarts_jax.data import pictures
from adarts_jax.data.images import ImageData, Select
from adarts_jax.errors import UserError, did_you_mean

FORMAT = "array_record"
DEFAULT_DATA_DIR = "~/tensorflow_datasets"
INFO_FILE = "dataset_info.json"
READ_AHEAD = 1000
HELD_BYTES = 2**29  # of encoded images, instead of reading them twice

Example = tuple[int, Mapping[str, Any]]  # its place in the split, its features

_NAME = re.compile(
    r"(?P<dataset>\w+)(?:/(?P<config>\w[\w.+-]*))?(?::(?P<version>\d+\.\d+\.\d+))?"
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def load_tfds(
    name: str,
    *,
    split: str,
    data_dir: Path | None = None,
    channels: int | None = None,
    image_size: int | None = None,
    select: Select | None = None,
) -> ImageData:
    """Load one split of a prepared data set into memory.

    Args:
      name: ``dataset``, ``dataset/config``, each optionally with ``:1.2.3``; without a
        version the newest one on disk.
      split: ``"train"``, ``"test"``, ... or a TFDS slice such as ``"train[:10%]"``.
      data_dir: folder of prepared data sets; None for the environment variable
        ``TFDS_DATA_DIR``, else ``~/tensorflow_datasets``.
      channels: 1 or 3; None as the data set declares.
      image_size: side in pixels to which images are stretched; None keeps the size.
      select: which images are wanted; no other is decoded. Files of more than
        `HELD_BYTES` are read twice for it. None wants all.

    Returns:
      Images in the order of the files.

    Raises:
      UserError: the data set is not there (at once, with the command that prepares
        it), is stored in another file format, has no images with class labels, or no
        such split.
    """
    data_dir = (data_dir or default_data_dir()).expanduser()
    folder = find_prepared(name, data_dir)
    builder = _open(folder)
    image_key, label_key = _find_features(builder.info.features, name)
    stored = builder.info.features[image_key]
    if stored.np_dtype not in (np.uint8, np.uint16):
        raise UserError(f"{name!r} stores {stored.np_dtype} images, not pictures")
    source = _open_split(builder, split, image_key, name)
    what = f"{name} {split}"
    size = builder.info.splits[split.partition("[")[0]].num_bytes
    wanted, examples = _choose(source, select, label_key, what, hold=size <= HELD_BYTES)
    labels = np.empty(len(wanted), np.int32)

    def encoded() -> Iterator[tuple[str, bytes]]:
        for place, (index, example) in enumerate(examples):
            labels[place] = example[label_key]
            yield f"{what}[{index}]", example[image_key]

    images = pictures.decode_all(
        encoded(),
        len(wanted),
        channels=channels or (1 if stored.shape[-1] == 1 else 3),
        image_size=image_size,
    )
    return ImageData(images, labels, _class_names(builder.info.features[label_key]))


def default_data_dir() -> Path:
    """Return where TensorFlow Datasets itself would look."""
    return Path(os.environ.get("TFDS_DATA_DIR", DEFAULT_DATA_DIR))


def find_prepared(name: str, data_dir: Path) -> Path:
    """Return the folder of one version, by looking at the disk only.

    TensorFlow Datasets itself answers a missing data set with a minute of network
    retries; this answers at once.

    Args:
      name: see `load_tfds`.
      data_dir: folder of prepared data sets.

    Returns:
      ``data_dir/dataset[/config]/version``.

    Raises:
      UserError: nothing there; the message has the command that prepares it.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise UserError(
            f"name={name!r} is no TFDS name; expected dataset, dataset/config or "
            "dataset/config:1.2.3"
        )
    folder = data_dir / parts["dataset"] / (parts["config"] or "")
    versions = _versions(folder)
    if parts["version"] in versions or (versions and not parts["version"]):
        return folder / (parts["version"] or versions[-1])
    held = _holdings(data_dir, folder, versions)
    raise UserError(
        f"no prepared TFDS data set {name!r} in {str(data_dir)!r} ({held}); prepare it "
        f"once with: {prepare_command(name, data_dir)}"
    )


def prepare_command(name: str, data_dir: Path) -> str:
    """Return the shell command that prepares a data set; it needs TensorFlow."""
    return (
        f"pip install tensorflow && tfds build {shlex.quote(name)} "
        f"--data_dir {shlex.quote(str(data_dir))} --file_format {FORMAT}"
    )


def _versions(folder: Path) -> list[str]:
    """Return the prepared versions in a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = [
        entry.name
        for entry in folder.iterdir()
        if _VERSION.fullmatch(entry.name) and (entry / INFO_FILE).is_file()
    ]
    return sorted(found, key=lambda version: [int(n) for n in version.split(".")])


def _holdings(data_dir: Path, folder: Path, versions: list[str]) -> str:
    """Say what is there instead: versions, configurations or other data sets."""
    if not data_dir.is_dir():
        return "which does not exist"
    if versions:
        return f"it has version {', '.join(versions)}"
    for place, kind in ((folder, "configuration"), (data_dir, "data set")):
        inside = _folders(place)
        if inside:
            return f"it has {kind} {', '.join(inside)}"
    return "which is empty"


def _folders(place: Path) -> list[str]:
    if not place.is_dir():
        return []
    return sorted(e.name for e in place.iterdir() if any(e.glob(f"**/{INFO_FILE}")))


def _open(folder: Path) -> Any:
    """Open a prepared version for reading."""
    if not any(folder.glob(f"*.{FORMAT}*")):
        raise UserError(
            f"{str(folder)!r} holds no {FORMAT} files, the only format read without "
            f"TensorFlow; convert it once with: pip install tensorflow && "
            f"tfds convert_format --dataset_version_dir {shlex.quote(str(folder))} "
            f"--out_file_format {FORMAT}"
        )
    try:
        # importlib_resources is needed but undeclared; array_record has no wheels for
        # some systems.
        import array_record  # noqa: F401
        import importlib_resources  # noqa: F401
        import tensorflow_datasets as tfds
        from google.protobuf.json_format import ParseError
    except ImportError as error:
        raise UserError(
            f"reading TFDS data needs the package {error.name!r}; install it with: "
            "pip install tensorflow-datasets array-record importlib_resources"
        ) from error
    try:
        return tfds.builder_from_directory(str(folder))
    except (ValueError, OSError, KeyError, ParseError) as error:
        raise _damaged(str(folder), error) from error


def _find_features(features: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return the keys of the image and of its class label."""
    from tensorflow_datasets import features as kinds

    # Sorted: features read from disk come in another order in every process.
    keys = sorted(features)
    images = [key for key in keys if isinstance(features[key], kinds.Image)]
    labels = [key for key in keys if isinstance(features[key], kinds.ClassLabel)]
    if not images or not labels:
        raise UserError(
            f"TFDS data set {name!r} is not image classification: it has "
            f"{', '.join(keys)}; choose one with an image and a class label"
        )
    # Where there are several, the usual names are meant.
    return (
        "image" if "image" in images else images[0],
        "label" if "label" in labels else labels[0],
    )


def _open_split(builder: Any, split: str, image_key: str, name: str) -> Any:
    """Return a random-access source that leaves images encoded."""
    import tensorflow_datasets as tfds

    known = list(builder.info.splits)
    base = split.partition("[")[0]
    if base not in known:
        raise UserError(
            f"TFDS data set {name!r} has no split {split!r}, only {', '.join(known)}"
            f"{did_you_mean(base, known)}"
        )
    skip = {image_key: tfds.decode.SkipDecoding()}
    try:
        return builder.as_data_source(split, decoders=skip)
    except (RuntimeError, OSError, NotImplementedError) as error:
        raise _damaged(f"{name} {split}", error) from error
    except ValueError as error:
        raise UserError(
            f"split={split!r} is no TFDS slice, or an empty one; write it like "
            "'train[:10%]'"
        ) from error


def _choose(
    source: Any, select: Select | None, label_key: str, what: str, *, hold: bool
) -> tuple[np.ndarray, Iterable[Example]]:
    """Return which examples are wanted, and read them."""
    wanted = np.arange(len(source))
    read = functools.partial(_read, source, what=what)
    if select is None:
        return wanted, read(wanted)
    held = list(read(wanted)) if hold else None
    labels = [example[label_key] for _, example in held or read(wanted)]
    wanted = select(np.array(labels, np.int32))
    return wanted, [held[index] for index in wanted] if held else read(wanted)


def _read(source: Any, wanted: np.ndarray, *, what: str) -> Iterator[Example]:
    """Yield examples, images encoded."""
    for start in range(0, len(wanted), READ_AHEAD):
        indices = wanted[start : start + READ_AHEAD].tolist()
        try:
            examples = source.__getitems__(indices)
        except (RuntimeError, OSError, ValueError) as error:
            raise _damaged(what, error) from error
        yield from zip(indices, examples, strict=True)


def _class_names(label: Any) -> tuple[str, ...]:
    return tuple(label.names or map(str, range(label.num_classes)))


def _damaged(what: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(
        f"TFDS data {what!r} cannot be read, files are missing or damaged ({reason}); "
        "prepare or copy it again"
    )
