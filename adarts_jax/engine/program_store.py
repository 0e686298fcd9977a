"""Compiled programs on disk that need no tracing to be found.

JAX's own cache is asked with a lowered program, and tracing and lowering one take
seconds. Here the question is the fingerprint of the function. Entries lie in the folder
of that cache, which is the user's alone (``compilation_cache``): they are pickled, and
code is run as it is found.
"""

import dataclasses
import logging
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import serialize_executable
from jaxtyping import PyTree

from adarts_jax.engine import compilation_cache, files
from adarts_jax.engine.chain import Chain

_logger = logging.getLogger(__name__)

MOST_ENTRIES = 24  # of a few to 100 MB each; the oldest go


class Entry(NamedTuple):
    """A compiled function.

    Attributes:
      call: a ``jax.stages.Compiled`` or a ``Chain``.
      out_info: shape and type of every leaf of the result.
    """

    call: Any
    out_info: Any


def load(name: str) -> Entry | None:
    """Return a compiled function; None if there is none that can be read.

    Args:
      name: fingerprint of the function, its arguments and how it was compiled.
    """
    folder = _folder()
    if folder is None or not (folder / name).is_file():
        return None
    try:
        (folder / name).touch()
        chain, programs, out_info = pickle.loads((folder / name).read_bytes())
        compiled = [_load(*program) for program in programs]
    except Exception as error:  # noqa: BLE001
        # Whatever is wrong with a file of a cache, the program can be compiled anew.
        _logger.warning("a kept program cannot be read and is compiled anew: %s", error)
        return None
    call = compiled[0]
    if chain is not None:
        call = dataclasses.replace(chain, programs=tuple(compiled))
    return Entry(call, out_info)


def takes(arguments: PyTree) -> bool:
    """Return whether a function of these arguments can be kept.

    There is a folder, and none of them lies on another device than the first.
    """
    arrays = [x for x in jax.tree.leaves(arguments) if isinstance(x, jax.Array)]
    return _folder() is not None and _are_on_first_device(x.sharding for x in arrays)


def save(name: str, entry: Entry) -> None:
    """Keep a compiled function; one that cannot be kept is left out, which is logged.

    One that runs on several devices, or not on the first one, is left out too.

    Args:
      name: as in ``load``.
      entry: the function.
    """
    folder = _folder()
    is_chain = isinstance(entry.call, Chain)
    programs = entry.call.programs if is_chain else (entry.call,)
    if folder is None or not _are_on_first_device(
        jax.tree.leaves([program.input_shardings for program in programs])
    ):
        return
    try:
        content = pickle.dumps(
            (
                dataclasses.replace(entry.call, programs=()) if is_chain else None,
                [serialize_executable.serialize(program) for program in programs],
                entry.out_info,
            )
        )
        files.replace(folder / name, lambda path: path.write_bytes(content))
        _forget_oldest(folder)
    except Exception as error:  # noqa: BLE001
        _logger.warning("a compiled program is not kept: %s", error)


def _load(content: bytes, in_tree: Any, out_tree: Any) -> Any:
    device = jax.local_devices()[0]
    return serialize_executable.deserialize_and_load(
        content, in_tree, out_tree, device.client, [device]
    )


def _are_on_first_device(shardings: Iterable[jax.sharding.Sharding]) -> bool:
    devices = {device for sharding in shardings for device in sharding.device_set}
    return devices <= {jax.local_devices()[0]}


def _forget_oldest(folder: Path) -> None:
    entries = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in entries[:-MOST_ENTRIES]:
        path.unlink(missing_ok=True)


def _folder() -> Path | None:
    """Return where entries lie; None without a cache, or one that is not private."""
    settings: Any = jax.config
    place = settings.jax_compilation_cache_dir
    if not place or not settings.jax_enable_compilation_cache:
        return None
    folder = Path(place) / "programs"
    try:
        compilation_cache.check_private(Path(place))
        folder.mkdir(mode=0o700, exist_ok=True)
        compilation_cache.check_private(folder)
    except OSError:
        return None
    return folder
