"""A process at work on a run: restore, repeat epochs, save, record, stop when asked.

The same for every kind of training; what an epoch is, and what is written down about
it, comes in as `Work`.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from adarts_jax.engine import compilation, manifest, run_directory
from adarts_jax.engine.checkpoints import Checkpoints
from adarts_jax.engine.console import Console, format_seconds
from adarts_jax.engine.epoch import Training
from adarts_jax.engine.interrupts import Interrupts
from adarts_jax.engine.metrics import TIME_PREFIX, MetricLog
from adarts_jax.engine.outcomes import Diverged, Interrupted
from adarts_jax.engine.pacing import StepClock, run_steps
from adarts_jax.engine.run_directory import RunDirectory
from adarts_jax.engine.work import Record, Work

SAVE_SECONDS = 600.0  # most work that a crash in the middle of an epoch can cost

MAX_ROLLBACKS = 3


class Session:
    """What the parts of a run share.

    Attributes:
      directory: places of its files.
      console: for people.
      interrupts: whether a signal asked to stop.
      checkpoints: saved states.
      log: records of the epochs.
      epochs: of the whole run.
      per_epoch: steps per epoch.
      total_steps: of the whole run.
      rollbacks: how often the run has gone back; belongs to the state.
    """

    def __init__(
        self,
        directory: RunDirectory,
        console: Console,
        interrupts: Interrupts,
        checkpoints: Checkpoints,
        *,
        epochs: int,
        steps_per_epoch: int,
    ):
        self.directory = directory
        self.console = console
        self.interrupts = interrupts
        self.checkpoints = checkpoints
        self.log = MetricLog(directory.metrics)
        self.epochs = epochs
        self.per_epoch = steps_per_epoch
        self.total_steps = epochs * steps_per_epoch
        self.rollbacks = 0
        self._clock = StepClock()
        self._compile_seconds: float | None = None

    def restore(self, shapes: PyTree) -> tuple[Training, int]:
        """Return the newest intact state and its step; take back later records."""
        step, training = self.checkpoints.restore(shapes)
        self.rollbacks = self.checkpoints.notes(step).get("rollbacks", 0)
        self.log.keep_before(step // self.per_epoch)
        # That of the last whole epoch is made up for if it was just saved.
        missing = self.log.missing_before((step - 1) // self.per_epoch)
        if missing:
            self.console.say(f"WARNING: metrics.jsonl has lost epochs {missing}")
        self.console.say(f"resuming at step {step} of {self.total_steps}")
        return training, step

    def save(self, training: Training, step: int) -> None:
        """Save a state in the background; a step that is saved is left as it is."""
        self.directory.check_present()
        notes = {"rollbacks": self.rollbacks}
        self.checkpoints.save(step, training, notes=notes)

    def settle(self) -> None:
        """Wait until everything is saved."""
        self.checkpoints.wait()
        self.directory.check_present()

    def is_complete(self, step: int) -> bool:
        """Return whether all steps are taken and all epochs recorded."""
        return step == self.total_steps and self._is_recorded(self.epochs - 1)

    def note_program(
        self,
        program: compilation.Program,
        *,
        about: Mapping[str, Any],
        command: str,
        first_step: int,
    ) -> None:
        """Note in the manifest that this process goes to work, and with what.

        Args:
          program: of the steps, compiled.
          about: facts of the whole run.
          command: the command line.
          first_step: where this process begins.
        """
        seconds, memory = program.compile_seconds, program.memory_bytes
        manifest.add_session(
            self.directory.manifest,
            about=about,
            command=command,
            first_step=first_step,
            details={"compile_seconds": seconds, "predicted_memory_bytes": memory},
        )
        self._compile_seconds = seconds
        shown = "" if memory is None else f", predicted memory {memory / 1e9:.2f} GB"
        self.console.say(f"compiled in {format_seconds(seconds)}{shown}")

    def train(self, work: Work, training: Training, step: int) -> Training:
        """Take the steps that are left, saving after each epoch and on a signal.

        An epoch is saved before it is measured, so that a crash while measuring costs
        nothing: the measuring is made up for.

        Raises:
          Interrupted: a signal came; the state is saved.
          Diverged: the loss is not finite; the last good state is saved.
        """
        shapes = jax.eval_shape(lambda: training)
        self.console.start(step, self.total_steps)
        self.interrupts.saving_is_useful = True
        self._record(work, training, step)
        while step < self.total_steps:
            try:
                training, step = self._run_part(work, training, step)
            except Diverged as error:
                # The error itself would keep the bad state in memory.
                problem = f"{error} (epoch {step // self.per_epoch})"
            else:
                self.save(training, step)
                self._record(work, training, step)
                if step < self.total_steps:
                    self.leave_if_asked(step)
                continue
            training, step = self._go_back(work, shapes, problem)
        return training

    def show(self, step: int, about: str) -> None:
        """Show what is going on, a few words, after a number of steps."""
        self.console.progress(step, about, self._clock.latest or 0.0)

    def leave_if_asked(self, step: int) -> None:
        """End the run after a signal.

        Args:
          step: the newest one that is saved, or about to be.

        Raises:
          Interrupted: a signal came.
        """
        if self.interrupts.requested is None:
            return
        self.settle()
        raise Interrupted(
            f"saved at step {step} of {self.total_steps}; continue with --resume --out "
            f"{self.directory.path}",
            self.interrupts.requested,
        )

    def _run_part(
        self, work: Work, training: Training, step: int
    ) -> tuple[Training, int]:
        """Run what is left of an epoch, or as much as a signal or the clock allows."""
        number, within = divmod(step, self.per_epoch)
        if within == 0:
            self._clock.restart()
        about, begun = work.describe(number), time.monotonic()
        taken = self._clock.steps

        def should_stop() -> bool:
            has_moved = self._clock.steps > taken
            is_due = has_moved and time.monotonic() - begun >= SAVE_SECONDS
            return is_due or self.interrupts.requested is not None

        return run_steps(
            work.begin(number, self.rollbacks),
            training,
            first=step,
            last=(number + 1) * self.per_epoch,
            clock=self._clock,
            should_stop=should_stop,
            on_progress=lambda done: self.show(done, about),
            names=work.names,
        )

    def _go_back(
        self, work: Work, shapes: PyTree, problem: str
    ) -> tuple[Training, int]:
        """Return the state at the beginning of an epoch whose loss was not finite.

        Not the newest state: one from the middle of an epoch is there only if a signal
        or a clock has asked for it, and the result must not depend on that.

        Raises:
          Diverged: that is not wanted, or was of no use several times.
        """
        self.settle()
        steps, place = self.checkpoints.steps(), self.directory.path
        starts = [step for step in steps if step % self.per_epoch == 0]
        if not (work.goes_back and starts and self.rollbacks < MAX_ROLLBACKS):
            tried = f", after {self.rollbacks} rollbacks" if self.rollbacks else ""
            again = "" if tried else f", or --resume --on-nan rollback --out {place}"
            raise Diverged(
                f"{problem}{tried}; the checkpoint of step {steps[-1]} is kept in "
                f"{str(place)!r}; start again with {work.remedy}{again}"
            )
        count = self.rollbacks + 1
        self.console.say(
            f"{problem}: rollback {count} of at most {MAX_ROLLBACKS}, to step "
            f"{starts[-1]}, with other random numbers and order of the images"
        )
        self.checkpoints.forget_after(starts[-1])
        training, step = self.restore(shapes)
        self.rollbacks = count
        return training, step

    def _is_recorded(self, number: int) -> bool:
        return any(record["epoch"] == number for record in self.log.records())

    def _record(self, work: Work, training: Training, step: int) -> None:
        """If an epoch is complete, measure it and write it down, once."""
        epochs, within = divmod(step, self.per_epoch)
        number = epochs - 1
        if within or number < 0 or self._is_recorded(number):
            return
        values = dict(work.measure(training, number))
        if self.rollbacks:
            values["rollbacks"] = self.rollbacks
        record = {"epoch": number, "step": step, **values, **self._clock_values()}
        self.directory.check_present()
        self.log.append(record)
        self.console.say(work.summarise(record))

    def _clock_values(self) -> Record:
        """Return the values of a record that differ from run to run."""
        values: Record = {
            "stamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "step_seconds": self._clock.mean,
        }
        if self._compile_seconds is not None:
            values["compile_seconds"] = self._compile_seconds
            self._compile_seconds = None
        return {TIME_PREFIX + name: value for name, value in values.items()}


@contextlib.contextmanager
def open_session(
    place: Path,
    *,
    overwrite: bool,
    console: Console | None,
    epochs: int,
    steps_per_epoch: int,
) -> Iterator[Session]:
    """Claim a run directory, listen to signals, and leave both in order.

    Args:
      place: run directory, checked.
      overwrite: delete the run in it first.
      console: where progress is shown; None for stderr.
      epochs: of the whole run.
      steps_per_epoch: of the whole run.

    Raises:
      UserError: the directory cannot be used.
    """
    console = console or Console()
    with (
        run_directory.claim(place, overwrite=overwrite) as directory,
        console,
        Interrupts(console.say) as interrupts,
        Checkpoints(directory.checkpoints, period=steps_per_epoch) as checkpoints,
    ):
        console.say(f"run directory {str(place)!r}")
        yield Session(
            directory,
            console,
            interrupts,
            checkpoints,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
        )
