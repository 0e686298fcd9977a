"""What a user of retraining can get wrong: one line, status 2, nothing written."""

import json

import numpy as np
import pytest
from PIL import Image

from train.retrain import main

CELL = [["max_pool_3x3", 0], ["skip_connect", 1]]


def write_genotype(file, normal):
    value = {
        "format": "adarts-genotype/1",
        **{"normal": normal, "normal_concat": [2]},
        **{"reduce": CELL, "reduce_concat": [2]},
    }
    file.write_text(json.dumps(value))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return the working directory of the program, with data of several kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADARTS_CACHE", "off")
    write_genotype(tmp_path / "good.json", CELL)
    write_genotype(tmp_path / "odd.json", [*CELL, CELL[0]])
    write_genotype(tmp_path / "op.json", [["max_pool_3", 0], CELL[1]])
    write_genotype(tmp_path / "index.json", [["max_pool_3x3", 2], CELL[1]])
    images, labels = np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 2
    train = {"train_images": images, "train_labels": labels}
    np.savez("untested.npz", **train)
    np.savez("small.npz", **train, test_images=images[:, :4, :4], test_labels=labels)
    for split in ("train", "test"):
        for name in ("cats", "dogs"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / "a.png")
    for number in range(12):
        (tmp_path / "pictures" / "train" / "cats" / f"bad_{number:02}.png").write_text(
            "x"
        )
    (tmp_path / "old").mkdir()
    saved = {"epochs": 3, "genotype": "other", "data": {"pad": 1}}
    (tmp_path / "old" / "config.json").write_text(json.dumps(saved))
    (tmp_path / "old" / "checkpoints" / "5").mkdir(parents=True)
    return tmp_path


GOOD = ["--genotype", "good.json"]
CROP = ["--data.crop-size", "8", "--data.pad", "0"]
NPZ = [*GOOD, "--batch-size", "4", "--data.source", "npz", "--data.data-dir"]


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ([], ["--genotype is required"]),
        (["--genotype", "darts_v3"], ["'darts_v3'", "darts_v2"]),
        (["--genotype", "odd.json"], ["odd.json", "3 entries", "two per"]),
        (["--genotype", "op.json"], ["'max_pool_3'", "did you mean 'max_pool_3x3'"]),
        (["--genotype", "index.json"], ["source 2 is out of range", "0 to 1"]),
        (["--genotype", "Genotype(normal=["], ["not a genotype: line 1"]),
        ([*GOOD, "--data.image-size", "3"], ["3x3", "too small", "4x4"]),
        ([*GOOD, "--network.stem", "imagenet"], ["8x8", "32x32"]),
        ([*GOOD, "--network.auxiliary", "true"], ["8x8", "at least 32x32"]),
        (
            [*GOOD, "--network.auxiliary", "true", "--network.num-cells", "1"],
            ["map of at least 8x8", "4x4", "at least 16x16"],
        ),
        ([*GOOD, "--network.num-classes", "9"], ["num_classes = 9", "10 classes"]),
        ([*GOOD, "--batch-size", "1501"], ["1501", "1500", "training set"]),
        (
            [*GOOD, "--batch-size", "1501", "--data.held-out-fraction", "0.5"],
            ["1501", "750", "weight split"],
        ),
        (
            [*GOOD, "--batch-size", "1", "--data.cutmix-probability", "0.5"],
            ["data.cutmix_probability = 0.5", "batch_size = 1"],
        ),
        ([*GOOD, "--data.num-examples", "1501"], ["1501", "1500"]),
        ([*GOOD, "--data.test-split", "valid"], ["'valid'", "'test'"]),
        (
            [*GOOD, *CROP[2:], "--data.crop-size", "9"],
            ["data.crop_size = 9", "8x8"],
        ),
        (
            [*GOOD, *CROP, "--data.color-jitter", "0.1,0,0,0"],
            ["data.color_jitter", "3 channels", "have 1"],
        ),
        ([*GOOD, "--data.normalization", "imagenet"], ["imagenet is for 3 channels"]),
        ([*NPZ, "untested.npz"], ["test"]),
        ([*NPZ, "small.npz"], ["4x4x3", "8x8x3", "data.image_size"]),
        (
            [*GOOD, "--data.source", "folder", "--data.data-dir", "pictures"],
            ["12", "bad_00.png", "bad_09.png"],
        ),
        ([*GOOD, "--evaluation.headline", "best"], ["'best'", "best_on_test"]),
        ([*GOOD, "--resume"], ["--resume needs --out"]),
        ([*GOOD, "--out", "old"], ["'old' exists", "--resume", "--overwrite"]),
        ([*GOOD, "--out", "new", "--resume"], ["no run in 'new'"]),
        (
            [*GOOD, "--out", "old", "--resume", "--epochs", "9"],
            ["another config", "epochs: 3 -> 9", 'genotype: "other" -> "Genotype('],
        ),
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


def test_ten_unreadable_pictures_are_named_and_the_others_counted(place, capsys):
    argv = [*GOOD, "--data.source", "folder", "--data.data-dir", "pictures"]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("bad_") == 10
