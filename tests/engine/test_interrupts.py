"""Signals: a request first, the end second, handlers back in place afterwards."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from adarts_jax.engine.interrupts import Interrupts

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request(signum):
    before = signal.getsignal(signum)
    said = []
    with Interrupts(said.append) as interrupts:
        interrupts.saving_is_useful = True
        os.kill(os.getpid(), signum)
        assert interrupts.requested == signum
    assert signal.getsignal(signum) is before
    assert len(said) == 1
    assert "stopping after this step" in said[0]


def run_script(body):
    code = (
        "import os, signal, sys, time\n"
        "from adarts_jax.engine.interrupts import Interrupts\n"
        "with Interrupts(lambda text: print(text, flush=True)) as interrupts:\n" + body
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_second_signal_ends_the_process(name, status):
    done = run_script(
        "    interrupts.saving_is_useful = True\n"
        f"    os.kill(os.getpid(), signal.{name})\n"
        "    print('still here', flush=True)\n"
        f"    os.kill(os.getpid(), signal.{name})\n"
        "    print('too late', flush=True)\n"
    )
    assert done.returncode == status
    assert "still here" in done.stdout
    assert "too late" not in done.stdout


def test_without_anything_to_save_the_first_signal_ends_the_process():
    done = run_script("    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(5)\n")
    assert done.returncode == 143
    assert "stopping at once" in done.stdout


def test_an_interactive_session_survives(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with Interrupts(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_do_without():
    failures = []

    def work():
        try:
            with Interrupts() as interrupts:
                assert interrupts.requested is None
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
