"""SIGTERM and SIGINT: at most one more step, one save, and nothing lost."""

import signal
import time

import pytest
from fault_tools import Process, read_json, run, same

STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}
SECONDS = 20.0  # far more than a save and leaving Python take, far less than the run


@pytest.mark.parametrize(
    ("kind", "signum"), [("fake", signal.SIGTERM), ("retrain", signal.SIGINT)]
)
def test_a_signal_ends_within_a_step_and_a_save(quick, wholes, tmp_path, kind, signum):
    place = tmp_path / kind
    process = Process(kind, place)
    process.wait_for(": step 2/")
    process.send(signum)
    sent = time.monotonic()
    assert process.end() == STATUS[signum]
    assert time.monotonic() - sent < SECONDS
    [announced] = [n for n, line in enumerate(process.lines) if "stopping" in line]
    after = process.lines[announced + 1 :]
    assert sum(": step " in line for line in after) <= 1
    assert after[-1].startswith("interrupted: saved at step ")
    step = int(after[-1].split()[4])
    assert run(kind, place, "--resume") == 0
    sessions = read_json(place / "manifest.json")["sessions"]
    assert [session["first_step"] for session in sessions] == [0, step]
    assert same(place, wholes(kind))


@pytest.mark.slow
def test_a_signal_while_compiling_ends_at_once(quick, wholes, tmp_path):
    place = tmp_path / "run"
    process = Process("fake", place)
    process.wait_for("compiling (")
    process.send(signal.SIGTERM)
    assert process.end() == 143
    assert "SIGTERM: stopping at once" in process.lines
    assert run("fake", place, "--resume") == 0
    assert same(place, wholes("fake"))
