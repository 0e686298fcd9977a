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

from adarts_jax.engine import files, manifest
from adarts_jax.engine.disk_faults import disk_advice
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
_BEGUN = ("checkpoints", ".*.tmp")  # what is there before config.json
_SHOWN_CHANGES = 6  # of a config, in an error


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """Places in a run directory, as in the contract of docs/design.md.

    Attributes:
      path: the directory.
      handle: of the open directory, while this process has claimed it.
    """

    path: Path
    handle: int | None = dataclasses.field(default=None, compare=False)

    def check_present(self) -> None:
        """Check that the directory is still the one that was claimed.

        Raises:
          UserError: it was deleted, moved or replaced.
        """
        if self.handle is None:
            return
        try:
            is_same = os.path.samestat(os.stat(self.path), os.fstat(self.handle))
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise UserError(
                f"run directory {str(self.path)!r} was deleted or moved while running; "
                "move it back and continue with --resume, or start again"
            )

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


def choose_place(out: Path | str | None, recipe: str, *, resume: bool) -> Path:
    """Return the run directory that is asked for, or one named after date and recipe.

    Args:
      out: as the user gave it.
      recipe: name for the default.
      resume: a run is to be continued.

    Raises:
      UserError: nobody said which run to continue.
    """
    if out is not None:
        return Path(out)
    if resume:
        raise UserError("--resume needs --out, the directory of the run to continue")
    return default_place(recipe)


def check_place(place: Path, *, resume: bool, overwrite: bool) -> None:
    """Check, before any work, that a run may start in a directory.

    Args:
      place: run directory.
      resume: the run there is to be continued, or started anew if nothing was saved.
      overwrite: the run there is to be replaced.

    Raises:
      UserError: the directory exists and neither flag is given, there is nothing to
        resume or a newer version wrote it, or what would be overwritten is no run.
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
        manifest.read(RunDirectory(place).manifest)  # refuses other formats
        return
    if not os.path.lexists(place):
        return
    if not place.is_dir():
        raise UserError(f"{shown} is a file, not a directory; choose another --out")
    if not overwrite:
        _check_unused(place)
    own = {entry for pattern in _OWN for entry in place.glob(pattern)}
    foreign = sorted(entry.name for entry in place.iterdir() if entry not in own)
    if foreign and not RunDirectory(place).config.is_file():
        raise UserError(
            f"--overwrite: {shown} is no run directory (it holds {foreign[0]!r}); "
            "choose another --out"
        )


def _check_unused(place: Path) -> None:
    """Check that nothing is in a directory but what a run leaves that never began."""
    begun = {entry for pattern in _BEGUN for entry in place.glob(pattern)}
    is_used = set(place.iterdir()) - begun or any(place.glob("checkpoints/*"))
    if is_used or not begun:
        raise UserError(
            f"{str(place)!r} exists; use --resume to continue the run in it, "
            "--overwrite to replace it, or another --out"
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
    old, new = dict(_flat(files.read_json(run.config))), dict(_flat(config))
    changes = [
        f"{name}: {_shown(old, name)} -> {_shown(new, name)}"
        for name in dict.fromkeys([*old, *new])
        if name not in may_differ and old.get(name, ...) != new.get(name, ...)
    ]
    if changes:
        if len(changes) > _SHOWN_CHANGES:
            changes[_SHOWN_CHANGES:] = [f"{len(changes) - _SHOWN_CHANGES} more"]
        raise UserError(
            f"--resume: the run in {str(run.path)!r} has another config ("
            f"{', '.join(changes)}); leave these options out, or start a new run"
        )


@contextlib.contextmanager
def claim(place: Path, *, overwrite: bool = False) -> Iterator[RunDirectory]:
    """Make a directory this process's own until the end of the context.

    The lock is on the open directory itself, so a crash leaves nothing behind.

    Args:
      place: checked by `check_place`; made if missing.
      overwrite: delete the files of a former run, and no others.

    Raises:
      UserError: the directory cannot be made or used, or another process has it.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle = os.open(place, os.O_RDONLY)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"cannot make directory {str(place)!r}: {reason}") from error
    run = RunDirectory(place, handle)
    try:
        with disk_advice(place, run.check_present):
            _lock(handle, place)
            if overwrite:
                _delete_run(place)
            for half_written in place.rglob(".*.tmp"):  # by a process that was killed
                half_written.unlink(missing_ok=True)
            yield run
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
