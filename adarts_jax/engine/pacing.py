"""The host loop over the steps of an epoch, in chunks between which it may stop.

Knows clocks and losses that are not finite; not what a step does.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from adarts_jax.engine.devices import wait_until_ready
from adarts_jax.engine.epoch import Training
from adarts_jax.engine.outcomes import Diverged

CHUNK_SECONDS = 2.0

Advance = Callable[[Training, int], Training]


@dataclasses.dataclass
class StepClock:
    """Measures steps and says how many to take before looking up again.

    Attributes:
      latest: seconds per step in the last chunk; None before the first.
      seconds: total since the last `restart`.
      steps: steps in that time.
    """

    latest: float | None = None
    seconds: float = 0.0
    steps: int = 0

    def restart(self) -> None:
        """Begin a new mean; the latest speed stays known."""
        self.seconds, self.steps = 0.0, 0

    def record(self, steps: int, seconds: float) -> None:
        """Take a measurement."""
        self.latest = seconds / steps
        self.seconds += seconds
        self.steps += steps

    @property
    def mean(self) -> float | None:
        """Seconds per step since the last `restart`."""
        return self.seconds / self.steps if self.steps else None

    def chunk(self, remaining: int) -> int:
        """Return how many steps take about `CHUNK_SECONDS`, at least one."""
        if self.latest is None:
            return 1
        return max(1, min(remaining, round(CHUNK_SECONDS / max(self.latest, 1e-6))))


def run_steps(
    advance: Advance,
    training: Training,
    *,
    first: int,
    last: int,
    clock: StepClock,
    should_stop: Callable[[], bool],
    on_progress: Callable[[int], None],
    names: Sequence[str] = ("",),
) -> tuple[Training, int]:
    """Advance from one step number to another, or until asked to stop.

    Args:
      advance: takes a state (given away) and a number of steps; may return before the
        device is done.
      training: state after ``first`` steps.
      first: steps done.
      last: steps to reach.
      clock: measures, and chooses the chunks.
      should_stop: asked between chunks.
      on_progress: called with the steps done after each chunk.
      names: of the searches side by side, as part of a message.

    Returns:
      The state, and the number of steps it has done.

    Raises:
      Diverged: a loss or gradient is not finite; names step and search.
    """
    done = first
    while done < last and not should_stop():
        steps = clock.chunk(last - done)
        start = time.perf_counter()
        # Whatever moved between host and device in here would do so at every step.
        with jax.transfer_guard("disallow"):
            training = advance(training, steps)
            wait_until_ready(training.metrics)
        clock.record(steps, time.perf_counter() - start)
        done += steps
        _check_finite(training, names)
        on_progress(done)
    return training, done


def _check_finite(training: Training, names: Sequence[str]) -> None:
    """Check the losses so far, of one search or of several."""
    bad = np.atleast_1d(jax.device_get(training.metrics.first_bad_step))
    if (bad < 0).all():
        return
    step = bad[bad >= 0].min()
    whose = " and".join(n for n, b in zip(names, bad, strict=True) if b == step)
    raise Diverged(f"the loss or its gradient is not finite at step {step}{whose}")
