"""Bad input of every kind for every program: one line, a way out, nothing changed."""

import fcntl
import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import bad_input_place
import bad_inputs_of_models as of_models
import bad_inputs_of_training as of_training
import pytest

from adarts_jax import cli, convert, predict, search
from adarts_jax.report.__main__ import report
from train import evaluate, retrain, select

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "adarts_jax.search": (search.main, of_training.SEARCH),
    "train.retrain": (retrain.main, of_training.RETRAIN),
    "train.select": (select.main, of_training.SELECT),
    "train.evaluate": (evaluate.main, of_models.EVALUATE),
    "adarts_jax.predict": (predict.main, of_models.PREDICT),
    "adarts_jax.convert": (convert.main, of_models.CONVERT),
    "adarts_jax.report": (
        lambda argv: cli.run_program(report, argv),
        of_models.REPORT,
    ),
}
ROWS = [(name, *case) for name, (_, cases) in PROGRAMS.items() for case in cases]
SHORTEST = 60  # rows that there must be, by the issue
PROCESSES = [
    ("adarts_jax.search", "--config endless.toml", "'endless.toml'"),
    ("train.retrain", "--genotype call.txt", "'__import__'"),
    ("train.evaluate", "model_claim", "model_claim/weights.safetensors"),
    ("adarts_jax.convert", "from-torch hostile.pt --out new", "'posix.system'"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make the working folder once; another process, as it were, uses run_busy."""
    root = tmp_path_factory.mktemp("place")
    bad_input_place.make_place(root)
    handle = os.open(root / "run_busy", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield root
    os.close(handle)


@pytest.fixture
def place(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ADARTS_CACHE", "off")
    return folder


def snapshot(root: Path) -> dict[str, object]:
    """Return names, kinds, times and contents of everything below a folder."""
    found: dict[str, object] = {}
    for path in [root, *root.rglob("*")]:
        info = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        digest = hashlib.sha256(content).hexdigest()
        found[str(path)] = (info.st_mode, info.st_size, info.st_mtime_ns, digest)
    return found


def arguments(command: str) -> list[str]:
    return shlex.split(command.replace("LONG", 300 * "x"))


@pytest.mark.parametrize(
    ("program", "command", "value", "way_out"),
    ROWS,
    ids=[f"{name} {command}" for name, command, *_ in ROWS],
)
def test_one_line_a_way_out_and_nothing_changed(
    place, capsys, program, command, value, way_out
):
    main, _ = PROGRAMS[program]
    before = snapshot(place)
    status = main(arguments(command))
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert value in err
    assert way_out in err
    assert snapshot(place) == before


def test_the_table_is_large_enough():
    assert len(ROWS) >= SHORTEST
    assert len({row[:2] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("program", "command", "value"), PROCESSES)
def test_processes_say_the_same(place, program, command, value):
    before = snapshot(place)
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments(command)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")
    assert value in done.stderr
    assert snapshot(place) == before
