"""One architecture search from config to genotype: the story, step by step.

Files, clocks and devices meet here; the mathematics is in `bilevel`, the compiled
inside of an epoch in `epoch`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from adarts_jax.bilevel.steps import QUANTITIES
from adarts_jax.config import SearchConfig
from adarts_jax.engine import (
    devices,
    files,
    manifest,
    metrics,
    run_directory,
    search_program,
    search_records,
    search_setup,
)
from adarts_jax.engine.checkpoints import Checkpoints
from adarts_jax.engine.console import Console, format_seconds
from adarts_jax.engine.epoch import SearchData, Training
from adarts_jax.engine.interrupts import Interrupts
from adarts_jax.engine.metrics import MetricLog
from adarts_jax.engine.outcomes import Diverged, Interrupted
from adarts_jax.engine.pacing import StepClock, run_steps
from adarts_jax.engine.run_directory import RunDirectory
from adarts_jax.engine.search_program import Problem, SearchProgram
from adarts_jax.errors import UserError
from adarts_jax.space.genotype import Genotype


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
      genotype: of the last epoch.
      metrics: one record per epoch, as in ``metrics.jsonl``.
      run_directory: where everything is.
    """

    genotype: Genotype
    metrics: tuple[dict[str, Any], ...]
    run_directory: Path


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
      resume: continue the run in ``out`` where it stopped; the result is, bit for bit,
        that of a run that never stopped (same kind and number of devices).
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
    if resume and out is None:
        raise UserError("--resume needs --out, the directory of the run to continue")
    place = run_directory.default_place(recipe) if out is None else Path(out)
    console = console or Console()
    start = search_setup.prepare(config, place, resume=resume, overwrite=overwrite)
    problem = search_program.make_problem(config, start)
    key = jax.random.key(config.seed)
    with (
        run_directory.claim(place, overwrite=overwrite) as run,
        console,
        Interrupts(console.say) as interrupts,
        Checkpoints(run.checkpoints) as checkpoints,
    ):
        console.say(f"run directory {str(place)!r}")
        if not resume:
            files.write_json(run.config, config.model_dump(mode="json"))
            files.replace(run.splits, start.parts.save)
        data = search_program.put_data(start, key)
        session = _Session(config, problem, run, console, interrupts, checkpoints)
        with devices.memory_advice(
            f"make batch_size (now {config.batch_size}) or network.init_channels (now "
            f"{config.network.init_channels}) smaller"
        ):
            training, step = session.first_state(key, resume=resume)
            if step < session.total_steps:
                program = session.compile(training, data, start.about, command, step)
                training = session.train(program, data, training, step)
        return session.finish(training)


class _Session:
    """The parts of the story, and what they share."""

    def __init__(
        self,
        config: SearchConfig,
        problem: Problem,
        run: RunDirectory,
        console: Console,
        interrupts: Interrupts,
        checkpoints: Checkpoints,
    ):
        self.config = config
        self.problem = problem
        self.run = run
        self.console = console
        self.interrupts = interrupts
        self.checkpoints = checkpoints
        self.log = MetricLog(run.metrics)
        self.clock = StepClock()
        self.per_epoch = problem.batching.steps_per_epoch
        self.total_steps = config.epochs * self.per_epoch

    def first_state(self, key: jax.Array, *, resume: bool) -> tuple[Training, int]:
        """Return the state to start from, newly drawn or restored, and its step."""
        traced = search_program.trace_init(self.problem, key)
        if not resume:
            return devices.compile_quickly(traced)(key), 0
        step, training = self.checkpoints.restore(traced.out_info)
        number = step // self.per_epoch
        self.log.keep_before(number)
        self.console.say(f"resuming at step {step} of {self.total_steps}")
        return training, step

    def compile(
        self,
        training: Training,
        data: SearchData,
        about: dict[str, Any],
        command: str,
        first_step: int,
    ) -> SearchProgram:
        """Compile, and note in the manifest that this process goes to work."""
        self.console.say("compiling (quick if an earlier run left it in the cache)")
        program = search_program.compile_search(self.problem, training, data)
        seconds, memory = program.program.compile_seconds, program.program.memory_bytes
        manifest.add_session(
            self.run.manifest,
            about=about,
            command=command,
            first_step=first_step,
            details={"compile_seconds": seconds, "predicted_memory_bytes": memory},
        )
        shown = "" if memory is None else f", predicted memory {memory / 1e9:.2f} GB"
        self.console.say(f"compiled in {format_seconds(seconds)}{shown}")
        return program

    def train(
        self, program: SearchProgram, data: SearchData, training: Training, step: int
    ) -> Training:
        """Run the epochs that are left, saving after each and on a signal."""
        self.console.start(step, self.total_steps)
        self.interrupts.saving_is_useful = True
        compile_seconds: float | None = program.program.compile_seconds
        for number in range(step // self.per_epoch, self.config.epochs):
            training, step = self.run_epoch(program, data, training, step, number)
            if step == (number + 1) * self.per_epoch:
                self.record_epoch(training, number, step, compile_seconds)
                compile_seconds = None
            self.checkpoints.save(step, training)
            if self.interrupts.requested is not None and step < self.total_steps:
                self.checkpoints.wait()
                raise Interrupted(
                    f"saved at step {step} of {self.total_steps}; continue with "
                    f"--resume --out {self.run.path}",
                    self.interrupts.requested,
                )
        return training

    def run_epoch(
        self,
        program: SearchProgram,
        data: SearchData,
        training: Training,
        step: int,
        number: int,
    ) -> tuple[Training, int]:
        """Run one epoch, or what is left of it, or as much as a signal allows."""
        pace = search_setup.epoch_pace(self.config, number)
        frozen = "" if pace.update_architecture else ", architecture frozen"

        def on_progress(done: int) -> None:
            about = f"epoch {number}{frozen}"
            self.console.progress(done, about, self.clock.latest or 0.0)

        self.clock.restart()
        try:
            return run_steps(
                program.advance(data, number, pace),
                training,
                first=step,
                last=(number + 1) * self.per_epoch,
                clock=self.clock,
                interrupts=self.interrupts,
                on_progress=on_progress,
            )
        except Diverged as error:
            saved = self.checkpoints.steps()
            kept = f"the checkpoint of step {saved[-1]}" if saved else "no checkpoint"
            raise Diverged(
                f"{error} (epoch {number}); {kept} is kept in {str(self.run.path)!r}; "
                "start again with a smaller weights.learning_rate (now "
                f"{self.config.weights.learning_rate}) or weights.gradient_clip (now "
                f"{self.config.weights.gradient_clip})"
            ) from error

    def record_epoch(
        self,
        training: Training,
        number: int,
        step: int,
        compile_seconds: float | None,
    ) -> None:
        """Write genotype and metrics of an epoch that is complete."""
        arch, method = training.state.arch, self.problem.method
        genotype = search_records.current_genotype(arch, method)
        pace = search_setup.epoch_pace(self.config, number)
        record = {
            "epoch": number,
            "step": step,
            **metrics.means(training.metrics, QUANTITIES),
            "weight/learning_rate": pace.weight_learning_rate,
            "architecture/learning_rate": pace.architecture_learning_rate,
            **search_records.describe_architecture(arch, method, genotype),
            **search_records.clock_values(self.clock.mean, compile_seconds),
        }
        files.write_text(self.run.epoch_genotype(number), genotype.to_json())
        self.log.append(record)
        line = search_records.epoch_line(
            record,
            epochs=self.config.epochs,
            warmup_epochs=self.config.warmup_epochs,
        )
        self.console.say(line)

    def finish(self, training: Training) -> SearchResult:
        """Write the result, the genotype last."""
        # Loads matplotlib, which a run needs only when it ends.
        from adarts_jax.report import pictures

        self.checkpoints.wait()
        arch, method = training.state.arch, self.problem.method
        genotype = search_records.current_genotype(arch, method)
        search_records.write_result(
            self.run,
            arch,
            method,
            genotype,
            draw=lambda: pictures.draw_run(self.run.path),
        )
        return SearchResult(genotype, tuple(self.log.records()), self.run.path)
