"""The directory of a run: its names, who may use it, and what is in it.

Contents are written by those who make them; here are places, the lock and the rules
of starting, resuming and overwriting.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from adarts_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: no lock
    fcntl = None

# What a run writes, and therefore what --overwrite may delete.
_OWN = (
    *("config.json", "manifest.json", "metrics.jsonl", "splits.json", "checkpoints"),
    *("genotypes", "genotype.json", "architecture.npz", "cells", "report.html"),
    *("model", "model_selected", "summary.json", "candidates.json", "trainings"),
    *("selection.json", "table.txt", "searches"),
    *("*.svg", "*.png", ".*.tmp"),
)


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """Places in a run directory, as in the contract of docs/design.md.

    Attributes:
      path: the directory.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Fully resolved config; can be passed as ``--config``."""
        return self.path / "config.json"

    @property
    def manifest(self) -> Path:
        """Versions, device, data, seed, commands."""
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        """One JSON record per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def splits(self) -> Path:
        """Which training images train what."""
        return self.path / "splits.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def architecture(self) -> Path:
        """Final architecture weights, for the heat maps."""
        return self.path / "architecture.npz"

    @property
    def genotype(self) -> Path:
        """The result; written last."""
        return self.path / "genotype.json"

    @property
    def model(self) -> Path:
        """Model directory of the last epoch."""
        return self.path / "model"

    @property
    def model_selected(self) -> Path:
        """Model directory of the epoch that was chosen."""
        return self.path / "model_selected"

    @property
    def summary(self) -> Path:
        """What a training came to; written last."""
        return self.path / "summary.json"

    @property
    def candidates(self) -> Path:
        """Genotypes of a selection, by name."""
        return self.path / "candidates.json"

    def training(self, name: str, seed: int) -> "RunDirectory":
        """One training of a selection."""
        return RunDirectory(self.path / "trainings" / f"{name}-seed{seed}")

    def search(self, seed: int) -> "RunDirectory":
        """One of several searches of a run."""
        return RunDirectory(self.path / "searches" / f"seed_{seed}")

    def epoch_genotype(self, epoch: int) -> Path:
        """Genotype at the end of an epoch."""
        return self.path / "genotypes" / f"epoch_{epoch:03d}.json"


def default_place(recipe: str) -> Path:
    """Return ``runs/<date>-<recipe>``, the date with the time of day."""
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{recipe or 'digits'}"


def check_place(
    place: Path, *, resume: bool, overwrite: bool, must_be_saved: bool = True
) -> None:
    """Check, before any work, that a run may start in a directory.

    Args:
      place: run directory.
      resume: the run there is to be continued.
      overwrite: the run there is to be replaced.
      must_be_saved: whether there must be a checkpoint to resume from; else a run that
        was stopped before the first one starts anew.

    Raises:
      UserError: the directory exists and neither flag is given, there is nothing to
        resume, or what would be overwritten is not a run.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one")
    shown = repr(str(place))
    if resume:
        if not RunDirectory(place).config.is_file():
            raise UserError(
                f"--resume: no run in {shown} (no config.json); start it without "
                "--resume, or name its directory with --out"
            )
        saved = RunDirectory(place).checkpoints.glob("*")
        is_saved = any(entry.name.isdigit() for entry in saved)  # else half written
        if must_be_saved and not is_saved:
            raise UserError(
                f"--resume: nothing was saved yet in {shown}; start again with "
                "--overwrite"
            )
        return
    if not os.path.lexists(place):
        return
    if not place.is_dir():
        raise UserError(f"{shown} is a file, not a directory; choose another --out")
    if not overwrite:
        raise UserError(
            f"{shown} exists; use --resume to continue the run in it, --overwrite to "
            "replace it, or another --out"
        )
    own = {entry for pattern in _OWN for entry in place.glob(pattern)}
    foreign = sorted(entry.name for entry in place.iterdir() if entry not in own)
    if foreign and not RunDirectory(place).config.is_file():
        raise UserError(
            f"--overwrite: {shown} is no run directory (it holds {foreign[0]!r}); "
            "choose another --out"
        )


def check_config(
    run: RunDirectory, config: Mapping[str, Any], *, may_differ: Collection[str] = ()
) -> None:
    """Check that a run to resume was started with the same config.

    Args:
      run: the run.
      config: JSON form of the config that is now asked for.
      may_differ: dotted names of fields that do not change the result.

    Raises:
      UserError: a field differs; the message shows saved and asked values.
    """
    old, new = dict(_flat(read_json(run.config))), dict(_flat(config))
    changes = [
        f"{name}: {_shown(old, name)} -> {_shown(new, name)}"
        for name in dict.fromkeys([*old, *new])
        if name not in may_differ and old.get(name, ...) != new.get(name, ...)
    ]
    if changes:
        raise UserError(
            f"--resume: the run in {str(run.path)!r} has another config ("
            f"{', '.join(changes)}); leave these options out, or start a new run"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a run wrote.

    Raises:
      UserError: it cannot be read, or is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{str(path)!r} does not hold a JSON object")
    return value


@contextlib.contextmanager
def claim(place: Path, *, overwrite: bool = False) -> Iterator[RunDirectory]:
    """Make a directory this process's own until the end of the context.

    The lock is on the open directory itself, so a crash leaves nothing behind.

    Args:
      place: checked by `check_place`; made if missing.
      overwrite: delete the files of a former run, and no others.

    Raises:
      UserError: the directory cannot be made, or another process has it.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle = os.open(place, os.O_RDONLY)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"cannot make directory {str(place)!r}: {reason}") from error
    try:
        _lock(handle, place)
        if overwrite:
            _delete_run(place)
        yield RunDirectory(place)
    finally:
        os.close(handle)


def _lock(handle: int, place: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"another process is running in {str(place)!r}; wait for it or choose "
            "another --out"
        ) from error
    except OSError:
        pass  # a file system without locks, such as a mounted drive


def _delete_run(place: Path) -> None:
    for pattern in _OWN:
        for entry in place.glob(pattern):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, member in value.items():
        if isinstance(member, Mapping):
            yield from _flat(member, f"{prefix}{name}.")
        else:
            yield prefix + name, member


def _shown(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "absent"
