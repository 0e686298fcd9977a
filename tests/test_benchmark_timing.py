"""The timing harness: workers stay apart, disturbed rounds do not count."""

import sys

import pytest

from benchmarks import timing

if not sys.platform.startswith("linux"):
    pytest.skip("the timing harness reads /proc", allow_module_level=True)

WORKER = """
import time
from benchmarks import timing
with timing.private_stdout() as replies:
    print("a library that talks")
    def spin():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    timing.serve({"device": "none"}, {"spin": spin}, replies)
"""


@pytest.fixture
def workers():
    command = [sys.executable, "-c", WORKER]
    pair = [timing.Worker(name, command, {}) for name in ("left", "right")]
    yield pair
    for worker in pair:
        worker.close()


def test_workers_take_turns_and_wait_without_work(workers):
    measured = timing.measure_in_turn(workers, "spin", rounds=2, repetitions=3)
    assert workers[0].setup["device"] == "none"
    for records in measured.values():
        assert 2 <= len(records) <= 6
        for record in records:
            assert len(record["seconds"]) == 3
            assert min(record["seconds"]) >= 0.05
            assert 0.14 <= record["cpu_seconds"] <= 0.3
            assert record["peak_mib"] > 1
            assert record["cores_used_by_waiting_workers"] < 0.1


def test_a_worker_that_ends_early_is_an_error():
    with pytest.raises(RuntimeError, match="'broken' ended with status 3"):
        timing.Worker("broken", [sys.executable, "-c", "raise SystemExit(3)"], {})


def record(seconds, elsewhere):
    return {
        "seconds": seconds,
        "cpu_seconds": sum(seconds),
        "peak_mib": 10.0,
        "cores_used": 1.0,
        "cores_used_elsewhere": elsewhere,
        "cores_used_by_waiting_workers": 0.0,
    }


def test_summary_leaves_out_disturbed_rounds():
    quiet = [record([1.0, 1.2], 0.0), record([1.1, 1.1], 0.01), record([1.3, 0.9], 0.0)]
    summary = timing.summarize([*quiet, record([9.0, 9.0], 1.0)])
    assert summary["median_seconds"] == pytest.approx(1.1)
    assert summary["max_seconds"] == 1.3
    assert summary["quiet"]
    assert (summary["rounds_kept"], summary["rounds_run"]) == (3, 4)


def test_summary_says_when_there_was_no_quiet():
    summary = timing.summarize([record([1.0, 1.0], 0.9), record([3.0, 3.0], 1.0)])
    assert summary["median_seconds"] == 2.0
    assert not summary["quiet"]
