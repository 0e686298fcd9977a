"""One training from genotype to model, step by step.

The mathematics is in `training`, the compiled inside of an epoch in `retrain_epoch`,
what any run does (files, clocks, signals) in `session`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax

from adarts_jax.data.images import ImageData
from adarts_jax.engine import (
    compilation,
    devices,
    epoch,
    evaluation,
    files,
    metrics,
    retrain_program,
    retrain_records,
    retrain_setup,
    run_directory,
)
from adarts_jax.engine.console import COMPILING, Console
from adarts_jax.engine.epoch import EpochData, Training
from adarts_jax.engine.evaluation import Evaluator
from adarts_jax.engine.retrain_program import RetrainProgram
from adarts_jax.engine.retrain_setup import Start
from adarts_jax.engine.session import Session, open_session
from adarts_jax.engine.work import Work
from adarts_jax.model_directory import save_model
from adarts_jax.retrain_config import RetrainConfig
from adarts_jax.training.retrain_step import QUANTITIES

PHASES = {"train": 0}


@dataclasses.dataclass(frozen=True)
class RetrainResult:
    """What a training came to.

    Attributes:
      summary: see `retrain_records.summary`.
      metrics: one record per epoch, as in ``metrics.jsonl``.
      run_directory: where everything is.
    """

    summary: dict[str, Any]
    metrics: tuple[dict[str, Any], ...]
    run_directory: Path


def retrain(
    config: RetrainConfig,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    recipe: str = "",
    command: str = "",
    console: Console | None = None,
) -> RetrainResult:
    """Train the derived network of a genotype; this is what the program calls.

    Args:
      config: of the training.
      out: run directory; None for ``runs/<date>-<recipe>``.
      resume: continue the run in ``out`` where it stopped, or start it anew if nothing
        was saved yet; the result is, bit for bit, that of a run that never stopped
        (same kind and number of devices).
      overwrite: replace the run in ``out``.
      recipe: name of the recipe, for the name of the run directory.
      command: the command line, for the manifest.
      console: where progress is shown; None for stderr.

    Returns:
      Accuracies, metrics and where everything was written.

    Raises:
      UserError: config, data and directory do not go together; nothing was changed.
      Interrupted: a signal came; the state is saved.
      Diverged: the loss is not finite; the last good state is saved.
    """
    recipe = recipe or "retrain_digits"
    place = run_directory.choose_place(out, recipe, resume=resume)
    config = retrain_setup.resolve_genotype(config)
    start = retrain_setup.prepare(config, place, resume=resume, overwrite=overwrite)
    problem = retrain_program.make_problem(config, start)
    key = jax.random.key(config.seed)
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
        _write_start(session, start)
        tested = retrain_program.tested_data(start)
        with devices.memory_advice(
            f"make batch_size (now {config.batch_size}) or network.init_channels (now "
            f"{config.network.init_channels}) smaller, or set network.remat = true or "
            f"network.precision = bfloat16 (now {config.network.precision})"
        ):
            data = retrain_program.put_data(start, key)
            init = retrain_program.make_init(problem)
            if is_saved:
                training, step = session.restore(compilation.out_info(init, key))
            else:
                training, step = compilation.compile_quickly(init, key).call(key), 0
                session.save(training, 0)  # a crash can come at once
            if not session.is_complete(step):
                session.console.say(COMPILING)
                program = retrain_program.compile_retrain(problem, training, data)
                evaluator = retrain_program.compile_test(
                    problem,
                    training.state.tested_variables,
                    batch_size=config.evaluation.batch_size,
                    start=start,
                    tested=tested,
                )
                session.note_program(
                    program.program,
                    about=start.about,
                    command=command,
                    first_step=step,
                )
                test = partial(_test, session, evaluator, tested)
                work = make_work(config, start, session, program, data, test)
                training = session.train(work, training, step)
        return _finish(session, config, start, training)


def make_work(
    config: RetrainConfig,
    start: Start,
    session: Session,
    program: RetrainProgram,
    data: EpochData,
    test: Callable[[Training, int], dict[str, float]],
) -> Work:
    """Return what a training does in an epoch, and what it writes down.

    Args:
      config: of the training.
      start: network and data.
      session: where the run is.
      program: of the steps.
      data: on the device.
      test: state at the end of an epoch and its number -> what a test says.
    """

    def measure(training: Training, number: int) -> dict[str, Any]:
        pace = retrain_setup.epoch_pace(config, number)
        values = {
            **metrics.means(training.metrics, PHASES, QUANTITIES),
            "train/learning_rate": pace.learning_rate,
            "train/drop_path_rate": pace.drop_path_rate,
        }
        if retrain_records.is_tested(config, number):
            values |= test(training, number)
            _keep_selected(session, config, start, training, number, values)
        return values

    return Work(
        begin=lambda number, rollbacks: program.advance(
            epoch.redrawn(data, rollbacks),
            number,
            retrain_setup.epoch_pace(config, number),
        ),
        describe=lambda number: f"epoch {number}",
        measure=measure,
        summarise=lambda record: retrain_records.epoch_line(
            record, epochs=config.epochs
        ),
        remedy=(
            f"a smaller weights.learning_rate (now {config.weights.learning_rate}) or "
            f"weights.gradient_clip (now {config.weights.gradient_clip})"
        ),
        goes_back=config.on_nan == "rollback",
    )


def _test(
    session: Session,
    evaluator: Evaluator,
    tested: Mapping[str, ImageData],
    training: Training,
    number: int,
) -> dict[str, float]:
    """Return loss and accuracies of every split that is tested."""
    variables, values = training.state.tested_variables, {}
    step = (number + 1) * session.per_epoch
    for name, data in tested.items():

        def progress(done: int, name: str = name, total: int = len(data)) -> None:
            session.leave_if_asked(step)
            session.show(step, f"epoch {number}, {name} {done}/{total} images")

        logits = evaluator.logits(variables, data.images, progress=progress)
        scores = evaluation.score(logits, data.labels)
        values[f"{name}/loss"] = scores.loss
        values[f"{name}/accuracy"] = scores.top1
        if data.num_classes > evaluation.TOP:
            values[f"{name}/top5_accuracy"] = scores.top5
    return values


def _keep_selected(
    session: Session,
    config: RetrainConfig,
    start: Start,
    training: Training,
    number: int,
    values: dict[str, Any],
) -> None:
    """Write the model of this epoch if it is better than all before it."""
    quantity = retrain_records.selecting_quantity(config)
    if quantity is None:
        return
    best = retrain_records.best_record(session.log.records(), quantity)
    if best is None or values[quantity] > best[quantity]:
        spec = retrain_records.model_spec(config, start, epoch=number)
        variables = jax.device_get(training.state.tested_variables)
        save_model(session.directory.model_selected, spec, variables)


def _write_start(session: Session, start: Start) -> None:
    """Write what is known before the first step."""
    directory = session.directory
    files.write_text(directory.genotype, start.network.genotype.to_json())
    parts = {
        "format": "adarts-splits/1",
        "num_examples": len(start.data),
        "weight_indices": start.weight_indices.tolist(),
        "held_out_indices": start.held_out_indices.tolist(),
    }
    files.write_json(directory.splits, parts)


def _finish(
    session: Session, config: RetrainConfig, start: Start, training: Training
) -> RetrainResult:
    """Write the model, the summary, the pictures and the report."""
    # Loads matplotlib, which a run needs only when it ends.
    from adarts_jax.report import page

    session.settle()
    directory, records = session.directory, session.log.records()
    variables = jax.device_get(training.state.tested_variables)
    spec = retrain_records.model_spec(config, start, epoch=config.epochs - 1)
    save_model(directory.model, spec, variables)
    summary = retrain_records.summary(config, records, variables)
    files.write_json(directory.summary, summary)
    page.report_run(directory.path, result=start.network.genotype)
    return RetrainResult(summary, tuple(records), directory.path)
