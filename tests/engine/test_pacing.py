"""The host loop: chunks, stops, divergence, and no hidden transfers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarts_jax.engine.epoch import MetricSums, Training
from adarts_jax.engine.interrupts import Interrupts
from adarts_jax.engine.outcomes import Diverged
from adarts_jax.engine.pacing import StepClock, run_steps


def make_training(bad=-1):
    return Training(jnp.int32(0), MetricSums({}, jnp.int32(0), jnp.int32(bad)))


class Loop:
    """Counts what the host asks of the device."""

    def __init__(self, *, bad_from=None):
        self.chunks, self.seen = [], []
        self.interrupts = Interrupts()
        self.clock = StepClock()
        self.bad_from = bad_from

    def advance(self, training, steps):
        self.chunks.append(steps)
        done = sum(self.chunks)
        bad = self.bad_from is not None and done > self.bad_from
        return jax.device_put(make_host(self.bad_from if bad else -1))

    def run(self, first, last):
        return run_steps(
            self.advance,
            make_training(),
            first=first,
            last=last,
            clock=self.clock,
            should_stop=lambda: self.interrupts.requested is not None,
            on_progress=self.seen.append,
        )


def make_host(bad):
    return Training(np.int32(0), MetricSums({}, np.int32(0), np.int32(bad)))


def test_every_step_is_taken_once_and_reported():
    loop = Loop()
    _, done = loop.run(3, 40)
    assert done == 40
    assert sum(loop.chunks) == 37
    assert loop.seen == list(3 + np.cumsum(loop.chunks))
    assert loop.chunks[0] == 1  # nothing is known about the speed yet
    assert loop.clock.steps == 37


def test_a_signal_stops_between_chunks():
    loop = Loop()
    loop.clock.latest = 1.0  # so that a chunk is two steps
    original = loop.advance

    def advance(training, steps):
        loop.clock.latest = 1.0
        loop.interrupts.requested = 15 if len(loop.chunks) == 0 else None
        return original(training, steps)

    loop.advance = advance
    _, done = loop.run(0, 40)
    assert done == 2
    assert loop.seen == [2]


def test_a_signal_before_the_first_step_takes_none():
    loop = Loop()
    loop.interrupts.requested = 2
    assert loop.run(5, 9)[1] == 5
    assert loop.chunks == []


def test_divergence_names_the_step():
    loop = Loop(bad_from=7)
    with pytest.raises(Diverged, match="not finite at step 7"):
        loop.run(0, 40)


def test_hidden_transfers_are_refused():
    loop = Loop()
    loop.advance = lambda training, steps: jax.jit(lambda s: s)(make_host(-1))
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        loop.run(0, 2)


@pytest.mark.parametrize(
    ("seconds", "remaining", "chunk"),
    [
        (None, 9, 1),
        (0.5, 9, 4),
        (0.5, 3, 3),
        (30.0, 9, 1),
        (0.0, 9, 9),
    ],
)
def test_chunks_take_about_two_seconds(seconds, remaining, chunk):
    assert StepClock(latest=seconds).chunk(remaining) == chunk


def test_the_clock_restarts_with_the_speed_in_mind():
    clock = StepClock()
    assert clock.mean is None
    clock.record(4, 2.0)
    clock.record(1, 3.0)
    assert (clock.mean, clock.latest) == (1.0, 3.0)
    clock.restart()
    assert (clock.mean, clock.latest) == (None, 3.0)
