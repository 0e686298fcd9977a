"""Several genotypes trained briefly, ranked by held-out images: which one to keep.

The trainings are those of `retrain_loop`; here are the list of candidates, the order
of the trainings and the table. A selection resumes at the training that was stopped.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adarts_jax.engine import files, retrain_loop, run_directory
from adarts_jax.engine.console import Console
from adarts_jax.engine.outcomes import Interrupted
from adarts_jax.engine.run_data import MAY_DIFFER
from adarts_jax.engine.run_directory import RunDirectory
from adarts_jax.errors import UserError
from adarts_jax.retrain_config import RetrainConfig, SelectConfig
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.published import find_genotype, is_genotype_text

FORMAT = "adarts-selection/1"


@dataclasses.dataclass(frozen=True)
class Row:
    """A candidate and what its trainings came to.

    Attributes:
      name: of the genotype.
      mean: held-out accuracy after the last epoch, mean over seeds.
      spread: standard deviation over seeds (n - 1); None for a single seed.
      accuracies: one per seed.
      num_parameters: of the network that was trained.
    """

    name: str
    mean: float
    spread: float | None
    accuracies: tuple[float, ...]
    num_parameters: int


def select(
    config: SelectConfig,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    recipe: str = "",
    command: str = "",
    console: Console | None = None,
) -> dict[str, Any]:
    """Train every candidate with every seed and rank them; see `selection.json`.

    Args:
      config: of the selection.
      out: folder; None for ``runs/<date>-<recipe>``.
      resume: leave out the trainings that are done, continue the one that stopped.
      overwrite: replace the selection in ``out``.
      recipe: name of the recipe, for the name of the folder.
      command: the command line, for the manifests.
      console: where progress is shown; None for stderr.

    Returns:
      The content of ``selection.json``, and its folder.

    Raises:
      UserError: config, genotypes and folder do not go together.
      Interrupted: a signal came; what is done is saved.
      Diverged: a training did.
    """
    place = run_directory.choose_place(out, recipe or "select", resume=resume)
    saved = config.model_dump(mode="json")
    check_folder(place, saved, resume=resume, overwrite=overwrite)
    if resume:
        candidates = _read_candidates(RunDirectory(place))
    else:
        candidates = find_candidates(config.genotypes)
    console = console or Console()
    with run_directory.claim(place, overwrite=overwrite) as run:
        if not resume:
            kept = {name: value.to_dict() for name, value in candidates.items()}
            files.write_json(run.candidates, kept)
            files.write_json(run.config, saved)
        found = _train_all(config, candidates, run, command, console)
        return _write_result(run, candidates, found, config.seeds, console)


def find_candidates(names: Sequence[str]) -> dict[str, Genotype]:
    """Return genotypes by name, each once.

    Args:
      names: published names, files, texts of genotypes, runs of searches, or folders
        of such runs.

    Raises:
      UserError: nothing found, or two genotypes of one name.
    """
    found: dict[str, Genotype] = {}
    for number, text in enumerate(names, start=1):
        for name, genotype in _read(text, f"genotype_{number}"):
            if genotype in found.values():
                continue
            if name in found:
                raise UserError(f"two genotypes are called {name!r}; rename a file")
            found[name] = genotype
    if not found:
        raise UserError(
            "no genotype to select from; name some, or a folder of search runs"
        )
    return found


def check_folder(
    place: Path, saved: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> None:
    """Check that a selection may start or go on in a folder.

    Raises:
      UserError: it may not.
    """
    if not resume:
        run_directory.check_place(place, resume=False, overwrite=overwrite)
        return
    if overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one")
    run = RunDirectory(place)
    if not run.config.is_file():
        raise UserError(
            f"--resume: no selection in {str(place)!r} (no config.json); start it "
            "without --resume, or name its folder with --out"
        )
    run_directory.check_config(run, saved, may_differ=MAY_DIFFER)


def rank(
    found: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[Row]:
    """Return the candidates by their mean held-out accuracy, the best first.

    Args:
      found: by name, one summary per seed.
    """
    rows = []
    for name, summaries in found.items():
        accuracies = tuple(summary["held_out_accuracy"] for summary in summaries)
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else None
        rows.append(
            Row(
                name,
                statistics.fmean(accuracies),
                spread,
                accuracies,
                summaries[0]["num_parameters"],
            )
        )
    return sorted(rows, key=lambda row: row.mean, reverse=True)


def format_table(rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """Return the ranking as text, accuracies in percent."""
    width = max(len("genotype"), *(len(row.name) for row in rows))
    heads = "".join(f"{f'seed {seed}':>10}" for seed in seeds)
    lines = [f"{'genotype':{width}}  parameters      mean    spread{heads}"]
    for row in rows:
        spread = "-" if row.spread is None else f"{100 * row.spread:.2f}"
        each = "".join(f"{100 * value:>10.2f}" for value in row.accuracies)
        lines.append(
            f"{row.name:{width}}  {row.num_parameters:>10,}{100 * row.mean:>10.2f}"
            f"{spread:>10}{each}"
        )
    return "\n".join(lines)


def _read(text: str, unnamed: str) -> list[tuple[str, Genotype]]:
    """Return the genotypes that a text stands for, with names of their own."""
    if is_genotype_text(text):
        return [(unnamed, Genotype.parse(text))]
    path = Path(text)
    if not path.is_dir():
        is_run = path.name == "genotype.json"
        name = path.absolute().parent.name if is_run else path.stem
        return [(name, find_genotype(text))]
    if (path / "genotype.json").is_file():
        runs = [path]
    else:
        runs = sorted(file.parent for file in path.glob("*/genotype.json"))
    if not runs:
        raise UserError(
            f"{text!r} holds no finished search (no genotype.json in it or in a folder "
            "of it)"
        )
    return [(run.absolute().name, Genotype.load(run / "genotype.json")) for run in runs]


def _read_candidates(run: RunDirectory) -> dict[str, Genotype]:
    """Return the genotypes a selection began with, wherever they are now."""
    kept = files.read_json(run.candidates)
    return {name: Genotype.from_dict(value) for name, value in kept.items()}


def _train_all(
    config: SelectConfig,
    candidates: Mapping[str, Genotype],
    run: RunDirectory,
    command: str,
    console: Console,
) -> dict[str, list[dict[str, Any]]]:
    """Train what is not trained yet; return all summaries by name, one per seed."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in candidates}
    total, done = len(candidates) * len(config.seeds), 0
    for name, genotype in candidates.items():
        for seed in config.seeds:
            place = run.training(name, seed)
            done += 1
            if place.summary.is_file():
                found[name].append(files.read_json(place.summary))
                continue
            console.say(f"training {done} of {total}: {name}, seed {seed}")
            can_resume = any(place.checkpoints.glob("[0-9]*"))
            try:
                result = retrain_loop.retrain(
                    training_config(config, genotype, seed),
                    out=place.path,
                    resume=can_resume,
                    overwrite=not can_resume and place.path.exists(),
                    command=command,
                )
            except Interrupted as error:
                raise Interrupted(
                    f"{done - 1} of {total} trainings are done; continue with --resume "
                    f"--out {run.path}",
                    error.signum,
                ) from error
            found[name].append(result.summary)
    return found


def training_config(
    config: SelectConfig, genotype: Genotype, seed: int
) -> RetrainConfig:
    """Return the config of one training."""
    settings = config.model_dump(exclude={"genotypes", "seeds"})
    return RetrainConfig(**settings, genotype=genotype.to_text(), seed=seed)


def _write_result(
    run: RunDirectory,
    candidates: Mapping[str, Genotype],
    found: Mapping[str, Sequence[Mapping[str, Any]]],
    seeds: Sequence[int],
    console: Console,
) -> dict[str, Any]:
    """Write table and winner, the genotype last."""
    rows = rank(found)
    table = format_table(rows, seeds)
    winner = rows[0].name
    result = {
        "format": FORMAT,
        "ranked_by": "held-out accuracy after the last epoch, mean over seeds",
        "seeds": list(seeds),
        "winner": winner,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    files.write_text(run.path / "table.txt", table + "\n")
    files.write_json(run.path / "selection.json", result)
    files.write_text(run.genotype, candidates[winner].to_json())
    console.say(table)
    return {"folder": str(run.path), "genotype": str(run.genotype), **result}
