"""``adarts_jax.predict``: the same logits from pictures and from arrays; mistakes."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_model import SPEC, write_tiny_model

from adarts_jax.predict import main

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 8), np.uint8)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return the working directory, with a model, pictures and arrays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADARTS_CACHE", "off")
    write_tiny_model(tmp_path / "model")
    write_pictures(tmp_path / "pictures")
    return tmp_path


def write_pictures(folder):
    """The same picture in several modes, at several depths."""
    (folder / "a" / "ü").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    grey = Image.fromarray(GREY)
    grey.save(folder / "grey.png")
    grey.convert("RGB").save(folder / "a" / "colour.PNG")
    grey.convert("RGBA").save(folder / "a" / "ü" / "alpha.png")
    grey.save(folder / ".hidden" / "no.png")
    (folder / "notes.txt").write_text("no picture")


def read(path):
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def test_pictures_and_arrays_agree(place, capsys):
    assert main(["model", "pictures", "--out", "a.npz"]) == 0
    pixels = (GREY[None, :, :, None].astype(np.float32) / 255 - 0.3) / 0.4
    np.save("one.npy", np.repeat(pixels.astype(np.float32), 3, axis=0))
    assert main(["model", "one.npy", "--out", "b.npz", "--batch-size", "2"]) == 0
    assert main(["model", "pictures/grey.png", "--out", "c.npz"]) == 0
    summaries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [s["num_images"] for s in summaries] == [3, 3, 1]
    a, b, c = read("a.npz"), read("b.npz"), read("c.npz")
    assert list(a["files"]) == ["a/colour.PNG", "a/ü/alpha.png", "grey.png"]
    assert list(b["files"]) == ["one.npy[0]", "one.npy[1]", "one.npy[2]"]
    assert list(c["files"]) == ["grey.png"]
    assert a["logits"].shape == (3, 10)
    for other in (b, c):
        wanted = a["logits"][: len(other["logits"])]
        np.testing.assert_allclose(other["logits"], wanted, rtol=1e-5)
    np.testing.assert_array_equal(a["labels"], a["logits"].argmax(1))
    assert tuple(a["class_names"]) == SPEC.class_names


def test_resize_brings_pictures_to_size(place, capsys):
    Image.fromarray(GREY).resize((20, 30)).save("pictures/large.png")
    assert main(["model", "pictures", "--out", "a.npz"]) == 2
    err = capsys.readouterr().err
    assert "large.png" in err
    assert "30x20 pixels instead of 8x8" in err
    assert "--resize" in err
    assert main(["model", "pictures", "--resize", "--out", "a.npz"]) == 0
    assert len(read("a.npz")["logits"]) == 4


def test_nothing_is_overwritten(place, capsys):
    (place / "a.npz").write_text("mine")
    assert main(["model", "pictures", "--out", "a.npz"]) == 2
    assert "'a.npz' exists" in capsys.readouterr().err
    assert (place / "a.npz").read_text() == "mine"
    assert main(["model", "pictures", "--overwrite", "--out", "a.npz"]) == 0
    assert len(read("a.npz")["files"]) == 3


def test_all_unreadable_pictures_are_named(place, capsys):
    for index in range(12):
        (place / "pictures" / f"bad{index:02}.jpg").write_bytes(b"\xff\xd8 no")
    assert main(["model", "pictures", "--out", "a.npz"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(f"bad{index:02}.jpg" in err for index in range(10))
    assert "12 pictures" in err
    assert "and 2 more" in err


GOOD = np.zeros((2, 8, 8, 1), np.float32)


@pytest.mark.parametrize(
    ("array", "parts"),
    [
        (GOOD.astype(np.float64), ["float64", "expected float32"]),
        (GOOD.astype(np.uint8), ["uint8", "mean=(0.3,)"]),
        (GOOD[0], ["(8, 8, 1)", "(any, 8, 8, 1)"]),
        (GOOD[:0], ["(0, 8, 8, 1)"]),
        (GOOD[:, :4], ["(2, 4, 8, 1)"]),
        (np.repeat(GOOD, 3, -1), ["(2, 8, 8, 3)"]),
        (GOOD.transpose(0, 3, 1, 2), ["transpose(0, 2, 3, 1)"]),
        (GOOD + np.array([0, np.nan], np.float32).reshape(2, 1, 1, 1), ["image 1"]),
        (np.array([{}], dtype=object), ["object"]),
    ],
)
def test_arrays_that_do_not_fit(place, capsys, array, parts):
    np.save("bad.npy", array, allow_pickle=True)
    assert main(["model", "bad.npy", "--out", "a.npz"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "bad.npy" in err
    for part in parts:
        assert part in err
    assert not (place / "a.npz").exists()


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["model", "nowhere", "--out", "a.npz"], ["'nowhere' does not exist"]),
        (["model", "nowhere.npy", "--out", "a.npz"], ["No such file"]),
        (["model", "text.npy", "--out", "a.npz"], ["is no .npy file"]),
        (["model", "cut.npy", "--out", "a.npz"], ["damaged or cut short"]),
        (["model", "empty", "--out", "a.npz"], ["no .png, .jpg or .jpeg"]),
        (["model", "pictures", "--out", "a.npy"], ["end in .npz"]),
        (["model", "pictures", "--out", "no/a.npz"], ["no folder 'no'"]),
        (["model", "pictures"], ["--out", "required"]),
        (["empty", "pictures", "--out", "a.npz"], ["not a model directory"]),
        (["model", "cut.npy", "--resize", "--out", "a.npz"], ["for pictures"]),
    ],
)
def test_mistakes_are_one_line(place, capsys, argv, parts):
    (place / "empty").mkdir()
    (place / "text.npy").write_text("hello")
    np.save("whole.npy", GOOD)
    (place / "cut.npy").write_bytes((place / "whole.npy").read_bytes()[:-1])
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err[:7]) == ("", 1, "error: ")
    for part in parts:
        assert part in err
    assert not (place / "a.npz").exists()


def test_pixels_in_place_of_normalised_values_are_noticed(place, caplog):
    np.save("pixels.npy", GOOD + 200)
    assert main(["model", "pixels.npy", "--out", "a.npz"]) == 0
    assert "unusual for normalised images" in caplog.text
