"""Everything a user can get wrong: one line, status 2, nothing written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adarts_jax.search import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return the working directory of the program, with data of several kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADARTS_CACHE", "off")
    images = np.zeros((20, 8, 8, 3), np.uint8)
    labels = np.arange(20) % 2
    np.savez("good.npz", images=images, labels=labels)
    np.savez("grey.npz", images=images[..., :1], labels=labels)
    np.savez("tiny.npz", images=images[:, :3, :3], labels=labels)
    np.savez("one_class.npz", images=images, labels=0 * labels)
    (tmp_path / "empty").mkdir()
    (tmp_path / "one" / "train" / "cats").mkdir(parents=True)
    for name in "abcd":
        picture = tmp_path / "one" / "train" / "cats" / f"{name}.png"
        Image.new("RGB", (8, 8)).save(picture)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    (tmp_path / "typo.toml").write_text("epoch = 3\n")
    return tmp_path


NPZ = ["--data.source", "npz", "--data.data-dir"]
FOLDER = ["--data.source", "folder", "--data.data-dir"]
SMALL = ["--batch-size", "4"]


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--epoch", "3"], ["unknown option '--epoch'", "'--epochs'"]),
        (["--config", "typo.toml"], ["unknown key 'epoch'", "'epochs'"]),
        (["--config", "typos.toml"], ["'typos.toml'", "did you mean 'typo.toml'"]),
        (["--network.init-channels", "18"], ["= 18", "try 16 or 20"]),
        ([*NPZ, "tiny.npz", *SMALL], ["3x3", "too small", "4x4"]),
        ([*NPZ, "missing.npz"], ["'missing.npz'", "not an existing"]),
        ([*NPZ, "one_class.npz", *SMALL], ["one class"]),
        ([*NPZ, "good.npz"], ["batch_size=32", "10 images", "weight split"]),
        (
            [*NPZ, "grey.npz", *SMALL, "--data.normalization", "cifar10"],
            ["data.normalization = cifar10", "have 1", "dataset"],
        ),
        ([*FOLDER, "missing"], ["'missing'", "not an existing folder"]),
        ([*FOLDER, "empty"], ["'empty'", "no folders"]),
        ([*FOLDER, "one"], ["one class"]),
        (["--data.source", "tfds", "--data.name", "cifar99"], ["'cifar99'"]),
        (["--data.name", "cifar10"], ["'digits' is built in"]),
        (["--data.num-examples", "1501"], ["1501", "1500"]),
        (["--out", "old"], ["'old' exists", "--resume", "--overwrite"]),
        (["--out", "empty"], ["'empty' exists"]),
        (["--out", "good.npz", "--overwrite"], ["is a file"]),
        (["--out", "one", "--overwrite"], ["no run directory"]),
        (["--out", "new", "--resume"], ["no run in 'new'"]),
        (["--out", "old", "--resume"], ["another config", "'old'"]),
        (["--resume"], ["--resume needs --out"]),
    ],
)
def test_one_line_and_nothing_written(place, capsys, argv, parts):
    before = sorted(place.rglob("*"))
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
    assert sorted(place.rglob("*")) == before


def test_the_process_says_the_same(place):
    done = subprocess.run(
        [sys.executable, "-m", "adarts_jax.search", "--epoch", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    expected = "error: unknown option '--epoch'; did you mean '--epochs'?\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
