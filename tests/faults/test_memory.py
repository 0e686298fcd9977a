"""What a run needs is told before it trains, and does not grow while it does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fake_search
import pytest
from tiny_model import SPEC

from adarts_jax import search
from adarts_jax.engine import compilation
from train import retrain

ROOT = Path(__file__).resolve().parents[2]
LONG_RUN = Path(__file__).with_name("long_run.py")
SMALL = ["--network.num-cells", "1", "--network.init-channels", "4"]
SMALL += ["--batch-size", "8", "--data.num-examples", "16"]
EPOCHS, SETTLED = 220, 20  # epochs, and after how many nothing may grow
MOST_GROWTH = 50 * 10**6  # bytes

PREDICTED = "predicted_memory_bytes"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADARTS_CACHE", "off")
    SPEC.genotype.save("genotype.json")


def check_prediction(monkeypatch, capsys, main, *argv: str) -> None:
    """Compare what is told with the compiler's own numbers and with what must fit."""
    analyses, original = [], compilation._predicted_memory

    def note(compiled):
        analyses.append(compiled.memory_analysis())
        return original(compiled)

    monkeypatch.setattr(compilation, "_predicted_memory", note)
    assert main([*argv, *SMALL, "--out", "run"]) == 0
    lines = capsys.readouterr().err.splitlines()
    told = [number for number, line in enumerate(lines) if "predicted memory" in line]
    trained = [number for number, line in enumerate(lines) if "epoch 0" in line]
    assert told[0] < trained[0]
    session = json.loads(Path("run/manifest.json").read_text())["sessions"][0]
    step = analyses[1]  # after the first state, before the tests of a training
    whole = step.argument_size_in_bytes + step.temp_size_in_bytes
    assert whole / 2 <= session[PREDICTED] <= 2 * whole
    saved = max(Path("run/checkpoints").iterdir(), key=lambda path: int(path.name))
    state = json.loads((saved / "meta" / "metadata").read_text())["bytes"]
    assert session[PREDICTED] > state > 0


def test_a_training_tells_what_it_needs(monkeypatch, capsys):
    argv = ["--genotype", "genotype.json", "--epochs", "1"]
    check_prediction(monkeypatch, capsys, retrain.main, *argv)


def test_a_search_tells_what_it_needs(monkeypatch, capsys):
    fake_search.install(monkeypatch)
    argv = ["--epochs", "1", "--warmup-epochs", "0"]
    check_prediction(monkeypatch, capsys, search.main, *argv)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "argv"),
    [
        ("search", ["--method", "pc_darts", "--warmup-epochs", "1"]),
        ("retrain", ["--genotype", "genotype.json"]),
    ],
)
def test_many_epochs_leave_nothing_behind(program, argv):
    epochs = ["--epochs", str(EPOCHS), "--out", "run"]
    done = subprocess.run(
        [sys.executable, LONG_RUN, program, *argv, *SMALL, *epochs],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout.splitlines()[-1])
    assert len(seen) == EPOCHS
    resident, compiled = zip(*seen[SETTLED:], strict=True)
    assert max(resident) - resident[0] < MOST_GROWTH
    assert compiled[-1] == seen[0][1] > 0
