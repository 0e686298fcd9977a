"""Read what a run left in its directory. Nothing is drawn or written here."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adarts_jax.errors import UserError
from adarts_jax.report.metrics_file import read_metrics
from adarts_jax.space.genotype import Genotype

RESULT_FILE = "genotype.json"
MAX_DEPTH = 50  # of a config or manifest; four are in use

_REPAIR = "restore it from a copy"


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The readable part of a run directory.

    Attributes:
      directory: where it is.
      config: the resolved configuration.
      manifest: versions, device, data and seeds; empty if there is none.
      records: the lines of ``metrics.jsonl``; empty if there is none.
      genotype: the result or, while the run is under way, the newest genotype.
      genotype_file: where the genotype was read, relative to the directory.
    """

    directory: Path
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    records: list[dict[str, Any]]
    genotype: Genotype | None
    genotype_file: str | None

    @property
    def is_finished(self) -> bool:
        """Whether the run has written its result."""
        if "genotype" in self.config:  # a training is given one, a search finds one
            return (self.directory / "summary.json").is_file()
        return self.genotype_file == RESULT_FILE

    @property
    def warmup_epochs(self) -> int:
        """Epochs before the first architecture step; 0 where the run has none."""
        epochs = self.config.get("warmup_epochs")
        return epochs if isinstance(epochs, int) and 0 <= epochs < 10**9 else 0


def read_run(run_directory: str | Path, *, result: Genotype | None = None) -> RunFiles:
    """Read the files of a run, finished or not.

    Args:
      run_directory: the ``--out`` of a run.
      result: its genotype, where that is not to be read.

    Raises:
      UserError: no such directory, it has no ``config.json``, or a file in it is
        damaged.
    """
    directory = Path(run_directory)
    if not directory.is_dir():
        raise UserError(f"{directory} is not a directory; give the --out of a run")
    config = directory / "config.json"
    if not config.is_file():
        raise UserError(
            f"{directory} is not a run directory: it has no config.json; give the "
            "--out of a run"
        )
    manifest, metrics = directory / "manifest.json", directory / "metrics.jsonl"
    newest = directory / RESULT_FILE if result else _newest_genotype(directory)
    return RunFiles(
        directory=directory,
        config=_read_object(config),
        manifest=_read_object(manifest) if manifest.is_file() else {},
        records=read_metrics(metrics) if metrics.is_file() else [],
        genotype=result or (Genotype.load(newest) if newest else None),
        genotype_file=newest.relative_to(directory).as_posix() if newest else None,
    )


def _newest_genotype(directory: Path) -> Path | None:
    """Return the file of the result, or of the last epoch that has one."""
    result = directory / RESULT_FILE
    if result.is_file():
        return result
    epochs = sorted((directory / "genotypes").glob("epoch_*.json"))
    return epochs[-1] if epochs else None


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}; {_REPAIR}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object; {_REPAIR}")
    if not _is_flat(value, MAX_DEPTH):
        raise UserError(f"{path} is nested more than {MAX_DEPTH} deep; {_REPAIR}")
    return value


def _is_flat(value: object, levels: int) -> bool:
    """Return whether nothing is nested deeper than so many levels."""
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_flat(member, levels - 1) for member in inner)
