"""One architecture search from config to genotype: the story, step by step.

The mathematics is in `bilevel`, the compiled inside of an epoch in `search_epoch`, what
any run does (files, clocks, signals) in `session`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adarts_jax.architecture import ArchitectureParams
from adarts_jax.bilevel.steps import ARCHITECTURE, QUANTITIES, WEIGHT
from adarts_jax.config import SearchConfig
from adarts_jax.engine import (
    compilation,
    devices,
    epoch,
    files,
    metrics,
    parallel_records,
    parallel_searches,
    run_directory,
    search_program,
    search_records,
    search_setup,
)
from adarts_jax.engine.console import COMPILING, Console
from adarts_jax.engine.epoch import MetricSums, Training
from adarts_jax.engine.run_directory import RunDirectory
from adarts_jax.engine.search_epoch import SearchData
from adarts_jax.engine.search_problem import Problem, make_problem
from adarts_jax.engine.search_program import SearchProgram
from adarts_jax.engine.session import Session, open_session
from adarts_jax.engine.work import Work
from adarts_jax.space.genotype import Genotype

PHASES = {"weight": WEIGHT, "architecture": ARCHITECTURE}


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
      genotype: of the last epoch; of several searches that of the best one, see
        `parallel_records`.
      metrics: one record per epoch, as in ``metrics.jsonl``.
      run_directory: where everything is.
      genotypes: of every search, by seed.
    """

    genotype: Genotype
    metrics: tuple[dict[str, Any], ...]
    run_directory: Path
    genotypes: Mapping[int, Genotype]


def search(
    config: SearchConfig,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    recipe: str = "",
    command: str = "",
    console: Console | None = None,
) -> SearchResult:
    """Search an architecture; this is what the program calls.

    Args:
      config: of the search.
      out: run directory; None for ``runs/<date>-<recipe>``.
      resume: continue the run in ``out`` where it stopped, or start it anew if nothing
        was saved yet; the result is, bit for bit, that of a run that never stopped
        (same kind and number of devices).
      overwrite: replace the run in ``out``.
      recipe: name of the recipe, for the name of the run directory.
      command: the command line, for the manifest.
      console: where progress is shown; None for stderr.

    Returns:
      Genotype, metrics and where everything was written.

    Raises:
      UserError: config, data and directory do not go together; nothing was changed.
      Interrupted: a signal came; the state is saved.
      Diverged: the loss is not finite; the last good state is saved.
    """
    place = run_directory.choose_place(out, recipe, resume=resume)
    start = search_setup.prepare(config, place, resume=resume, overwrite=overwrite)
    problem = make_problem(config, start)
    key = parallel_searches.root_key(config)
    with open_session(
        place,
        overwrite=overwrite,
        console=console,
        epochs=config.epochs,
        steps_per_epoch=problem.batching.steps_per_epoch,
    ) as session:
        is_saved = resume and bool(session.checkpoints.steps())
        if not is_saved:
            files.write_json(session.directory.config, config.model_dump(mode="json"))
        parallel_records.begin(session.directory, config, start)
        seeds = None if problem.seed is None else parallel_searches.own_seeds(config)
        with devices.memory_advice(search_setup.memory_advice(config)):
            data = search_program.put_data(start, key, seeds)
            init = search_program.make_init(problem)
            if is_saved:
                training, step = session.restore(compilation.out_info(init, key))
            else:
                training, step = compilation.compile_quickly(init, key).call(key), 0
                session.save(training, 0)  # a crash can come at once
            if problem.trains and not session.is_complete(step):
                session.console.say(COMPILING)
                program = search_program.compile_search(problem, training, data)
                session.note_program(
                    program.program,
                    about=start.about,
                    command=command,
                    first_step=step,
                )
                work = make_work(config, problem, session.directory, program, data)
                training = session.train(work, training, step)
        return _finish(session, config, problem, training)


def make_work(
    config: SearchConfig,
    problem: Problem,
    run: RunDirectory,
    program: SearchProgram,
    data: SearchData,
) -> Work:
    """Return what a search does in an epoch, and what it writes down."""

    def describe(number: int) -> str:
        several = f" of {config.num_searches} searches"
        is_frozen = number < config.warmup_epochs
        return (
            f"epoch {number}"
            + (several if config.num_searches > 1 else "")
            + (", architecture frozen" if is_frozen else "")
        )

    return Work(
        begin=lambda number, rollbacks: program.advance(
            epoch.redrawn(data, rollbacks),
            number,
            search_setup.epoch_pace(config, number),
        ),
        describe=describe,
        measure=lambda training, number: _measure(
            config, problem, run, training, number
        ),
        summarise=lambda record: search_records.epoch_line(
            record, epochs=config.epochs, warmup_epochs=config.warmup_epochs
        ),
        remedy=(
            f"a smaller weights.learning_rate (now {config.weights.learning_rate}) or "
            f"weights.gradient_clip (now {config.weights.gradient_clip})"
        ),
        goes_back=config.on_nan == "rollback",
        names=parallel_searches.names(config),
    )


def _measure(
    config: SearchConfig,
    problem: Problem,
    run: RunDirectory,
    training: Training,
    number: int,
) -> Mapping[str, Any]:
    """Write the genotypes of an epoch, and return what else there is to know."""
    places, singles = parallel_searches.places(run, config), _singles(problem, training)
    records = []
    for place, (arch, sums) in zip(places, singles, strict=True):
        genotype = search_records.current_genotype(arch, problem.method)
        file = place.epoch_genotype(number)
        file.parent.mkdir(exist_ok=True)
        files.write_text(file, genotype.to_json())
        pace = search_setup.epoch_pace(config, number)
        records.append(
            {
                **metrics.means(sums, PHASES, QUANTITIES),
                "weight/learning_rate": pace.weight_learning_rate,
                "architecture/learning_rate": pace.architecture_learning_rate,
                **search_records.describe_architecture(arch, problem.method, genotype),
            }
        )
    return parallel_records.note_epoch(
        run,
        places,
        records,
        [sums for _, sums in singles],
        epoch=number,
        step=(number + 1) * problem.batching.steps_per_epoch,
    )


def _finish(
    session: Session, config: SearchConfig, problem: Problem, training: Training
) -> SearchResult:
    """Write the results, and last of all the genotype of the run."""
    session.settle()
    run, singles = session.directory, _singles(problem, training)
    results = list(zip(parallel_searches.places(run, config), singles, strict=True))
    if problem.num_searches > 1:
        best = parallel_records.best_search([sums for _, sums in singles])
        results.append((run, singles[best]))
    genotypes = []
    for place, (arch, _) in results:
        genotypes.append(search_records.current_genotype(arch, problem.method))
        search_records.write_result(place, arch, problem.method, genotypes[-1])
    seeds = [single.seed for single in parallel_searches.single_configs(config)]
    return SearchResult(
        genotypes[-1],
        tuple(session.log.records()),
        run.path,
        dict(zip(seeds, genotypes, strict=False)),
    )


def _singles(
    problem: Problem, training: Training
) -> list[tuple[ArchitectureParams, MetricSums]]:
    """Return architecture and sums of every search."""
    both = (training.state.arch, training.metrics)
    return parallel_searches.split(both, problem.num_searches)
