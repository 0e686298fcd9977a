"""Checkpoints: the whole state of training on disk, by Orbax.

The only module that knows Orbax. A state of thousands of small arrays is packed into
one vector of bytes: saving 3000 arrays one by one takes seconds of a CPU, packed a
tenth of one. Whole arrays on one host are assumed.
"""

import contextlib
import dataclasses
import errno
import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from jaxtyping import PyTree

from adarts_jax.errors import UserError, format_advice

FORMAT = "adarts-checkpoint/1"
KEEP = 3

# What Orbax and the readers below it raise on missing, cut or altered files.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError)

_logger = logging.getLogger(__name__)


class Checkpoints:
    """Saves states by step number and finds the newest one that is intact.

    A context: leaving it waits until everything is written.
    """

    def __init__(self, directory: Path, *, period: int = 1, keep: int = KEEP):
        """Open a directory of checkpoints.

        Args:
          directory: made if missing.
          period: besides, the newest one whose step is a multiple of it is kept.
          keep: how many of the newest are kept.

        Raises:
          OSError: the directory cannot be made.
        """
        import orbax.checkpoint as ocp

        self._directory = directory.absolute()
        self._orbax = ocp
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_Preserved(keep, period),
                cleanup_tmp_directories=True,
            ),
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish writing.

        Raises:
          OSError: see `wait`; not if another error is on its way, which tells more.
        """
        is_first = kind is None
        quiet = contextlib.nullcontext() if is_first else contextlib.suppress(Exception)
        with quiet, _disk_faults():
            self._manager.close()

    def steps(self) -> list[int]:
        """Return the step numbers of all checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(
        self, step: int, tree: PyTree, *, notes: Mapping[str, Any] | None = None
    ) -> None:
        """Save a state; writing goes on in the background.

        The arrays are copied first and may be given away (donated) at once. A step
        that is already saved is left as it is.

        Args:
          step: number of steps done, higher than any saved before.
          tree: any pytree of arrays.
          notes: what else belongs to the state, as JSON knows it.

        Raises:
          OSError: this or the save before could not be written.
          RuntimeError: Orbax refused.
        """
        if step in self.steps():
            return
        packed = _pack(tree)
        meta = {
            "format": FORMAT,
            "leaves": _describe(tree),
            "bytes": packed.size,
            "crc32": zlib.crc32(packed.data),
            "notes": dict(notes or {}),
        }
        args = self._orbax.args
        items = args.Composite(
            state=args.StandardSave({"packed": packed}), meta=args.JsonSave(meta)
        )
        with _disk_faults():
            saved = self._manager.save(step, args=items)
        if not saved:
            raise RuntimeError(f"Orbax did not save step {step}")

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
          OSError: it could not be.
        """
        with _disk_faults():
            self._manager.wait_until_finished()

    def forget_after(self, step: int) -> None:
        """Delete the checkpoints of later steps."""
        self.wait()
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def notes(self, step: int) -> dict[str, Any]:
        """Return what was noted with a checkpoint that can be restored."""
        meta = self._load(step, meta=self._orbax.args.JsonRestore())["meta"]
        return meta.get("notes", {})

    def restore(self, template: PyTree) -> tuple[int, PyTree]:
        """Load the newest intact checkpoint.

        Damaged ones that are newer are reported and deleted, so that their steps can
        be saved again.

        Args:
          template: tree of ``ShapeDtypeStruct`` or arrays, as `save` was given.

        Returns:
          Step number and state, as arrays on the default device.

        Raises:
          UserError: no checkpoint, none intact, or one of another format or with
            other names, shapes or types (all listed).
        """
        steps = self.steps()
        if not steps:
            raise UserError(
                f"no checkpoint in {str(self._directory)!r}: nothing was saved yet; "
                "start again with --overwrite instead of --resume"
            )
        damaged = []
        for step in reversed(steps):
            try:
                packed = self._read(step, template)
            except UserError:
                raise
            except _DAMAGE as error:
                reason = " ".join(str(error).split())[:200]
                _logger.warning("checkpoint of step %d is damaged (%s)", step, reason)
                damaged.append(step)
                continue
            for bad in damaged:
                self._manager.delete(bad)
            if damaged:
                _logger.warning("continuing from step %d instead", step)
            return step, _unpack(packed, template)
        raise UserError(
            f"all {len(steps)} checkpoints in {str(self._directory)!r} are damaged; "
            "restore the directory from a copy, or start again with --overwrite"
        )

    def _read(self, step: int, template: PyTree) -> np.ndarray:
        args = self._orbax.args
        meta = self._load(step, meta=args.JsonRestore())["meta"]
        _check_meta(meta, template, step)
        empty = {"packed": np.zeros(meta["bytes"], np.uint8)}
        packed = self._load(step, state=args.StandardRestore(empty))["state"]["packed"]
        if zlib.crc32(packed.data) != meta["crc32"]:
            raise ValueError("checksum differs")
        return packed

    def _load(self, step: int, **items: Any) -> Any:
        args = self._orbax.args.Composite(**items)
        return self._manager.restore(step, args=args)


@dataclasses.dataclass(frozen=True)
class _Preserved:
    """Which checkpoints stay: a preservation policy of Orbax."""

    newest: int
    period: int

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> Sequence[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        start = max((step for step in steps if step % self.period == 0), default=None)
        return [step == start or step in steps[-self.newest :] for step in steps]


@contextlib.contextmanager
def _disk_faults() -> Iterator[None]:
    """Turn what the writer below Orbax says about a disk into OSError."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if not re.match("[A-Z_]+: ", text):  # the name of a status
            raise
        found = re.search(r"os_error_code='(\d+)'", text)
        number = int(found[1]) if found else errno.EIO
        reason = os.strerror(number) if found else text[:200]
        raise OSError(number, reason) from error


def _describe(tree: PyTree) -> list[list[Any]]:
    """Return [path, type, shape] of every leaf, in the order of the tree."""
    return [
        [jax.tree_util.keystr(path), str(np.dtype(leaf.dtype)), list(leaf.shape)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _pack(tree: PyTree) -> np.ndarray:
    """Copy the bytes of all leaves, in the order of the tree, to the host."""
    leaves = jax.device_get(jax.tree.leaves(tree))
    return np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)


def _unpack(packed: np.ndarray, template: PyTree) -> PyTree:
    """Cut the bytes into arrays like those of the template."""
    leaves, start = [], 0
    for like in jax.tree.leaves(template):
        dtype = np.dtype(like.dtype)
        stop = start + dtype.itemsize * int(np.prod(like.shape))
        host = packed[start:stop].view(dtype).reshape(like.shape)
        # A copy of its own: training gives its arrays away.
        leaves.append(jax.numpy.array(host, copy=True))
        start = stop
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _check_meta(meta: dict[str, Any], template: PyTree, step: int) -> None:
    """Compare what was saved with what is wanted, all leaves in one message."""
    if meta["format"] != FORMAT:
        raise UserError(
            f"checkpoint of step {step} has format {meta['format']!r}, this version "
            f"reads {FORMAT!r}: {format_advice(meta['format'], FORMAT)}"
        )
    saved = {path: (dtype, shape) for path, dtype, shape in meta["leaves"]}
    wanted = {path: (dtype, shape) for path, dtype, shape in _describe(template)}
    changes = [
        f"{path}: {_shown(saved.get(path))} -> {_shown(wanted.get(path))}"
        for path in dict.fromkeys([*saved, *wanted])
        if saved.get(path) != wanted.get(path)
    ]
    if changes:
        more = f", and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise UserError(
            f"checkpoint of step {step} does not fit this run "
            f"({', '.join(changes[:5])}{more}); start a new run"
        )


def _shown(leaf: tuple[str, list[int]] | None) -> str:
    if leaf is None:
        return "absent"
    dtype, shape = leaf
    return f"{dtype}[{','.join(map(str, shape))}]"
