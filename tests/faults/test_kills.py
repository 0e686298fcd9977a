"""SIGKILL at any moment: the resumed run is, byte for byte, one that never stopped."""

import signal
import time

import numpy as np
import pytest
from fault_tools import EPOCHS, STEPS, Process, run, same

LAST = EPOCHS * STEPS
START_SECONDS = 2.0  # imports and data take longer: no step is taken


class Moment:
    """When to kill: one of the kinds below, at a step where that means something."""

    def __init__(self, kind, step=0):
        self.kind, self.step = kind, step

    def __repr__(self):
        return f"{self.kind} {self.step}"

    def wait(self, process, place, random):
        if self.kind == "start":
            time.sleep(random.uniform(0, START_SECONDS))
        elif self.kind == "compiling":
            process.wait_for("compiling (")
            time.sleep(random.uniform(0, 0.3))
        elif self.kind == "first step":
            process.wait_for(": step ")
        elif self.kind == "step":
            process.wait_for_step(self.step)
            time.sleep(random.uniform(0, 0.005))  # about a step
        elif self.kind == "saving":
            process.wait_for_step(self.step)
            wait_for_half_a_checkpoint(place)
        else:
            process.wait_for(f"epoch {EPOCHS - 1} (")
            time.sleep(random.uniform(0, 1))


def half_checkpoints(place):
    return [p for p in (place / "checkpoints").glob("*") if not p.name.isdigit()]


def wait_for_half_a_checkpoint(place):
    deadline = time.monotonic() + 5
    while not half_checkpoints(place) and time.monotonic() < deadline:
        time.sleep(0.0005)


def random_moments(random):
    """Return 20 moments that a run can meet one after another."""
    steps = sorted(random.integers(1, LAST, 9))
    ordered = [Moment("step", int(step)) for step in steps]
    ordered += [Moment("saving", STEPS * epoch) for epoch in range(1, EPOCHS + 1)]
    ordered.sort(key=lambda moment: (moment.step, moment.kind == "step"))
    anywhere = ["start", "compiling", "first step"] * 2 + ["start"]
    for kind in anywhere:
        # before the last save, after which there is no first step
        ordered.insert(random.integers(len(ordered) - 1), Moment(kind))
    return [*ordered, Moment("finishing")]


def kill_again_and_again(kind, place, moments):
    """Start or resume, kill at each moment; return how many half checkpoints it hit."""
    random = np.random.default_rng(0)
    hits = 0
    for moment in moments:
        resume = ["--resume"] if (place / "config.json").exists() else []
        process = Process(kind, place, *resume)
        moment.wait(process, place, random)
        process.send(signal.SIGKILL)
        assert process.end() == -signal.SIGKILL, f"it ended before {moment}"
        hits += bool(half_checkpoints(place))
    return hits


@pytest.mark.parametrize(
    ("kind", "moments"),
    [
        ("fake", [Moment("saving", 4), Moment("step", 7)]),
        ("retrain", [Moment("compiling")]),
    ],
)
def test_killed_and_resumed_is_bit_for_bit_the_same(
    quick, wholes, tmp_path, kind, moments
):
    place = tmp_path / kind
    kill_again_and_again(kind, place, moments)
    assert run(kind, place, "--resume") == 0
    assert same(place, wholes(kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_killed_twenty_times(wholes, tmp_path, kind):
    place = tmp_path / kind
    moments = random_moments(np.random.default_rng(2026))
    assert len(moments) == 20
    hits = kill_again_and_again(kind, place, moments)
    assert hits > 0, "no checkpoint was hit while it was written"
    assert run(kind, place, "--resume") == 0
    assert same(place, wholes(kind, drawn=True))
