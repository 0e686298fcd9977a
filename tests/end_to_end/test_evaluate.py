"""``train.evaluate``: one line of JSON, agreeing with the network; mistakes named."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import SPEC, write_tiny_model

import adarts_jax as aj
from adarts_jax.data import digits, sources
from adarts_jax.data.augment import normalize
from train.evaluate import main


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADARTS_CACHE", "off")
    return tmp_path


def test_the_numbers_are_those_of_the_network(place, capsys):
    write_tiny_model(place / "model")
    assert main(["model", "--out", "judged", "--batch-size", "100"]) == 0
    out, _ = capsys.readouterr()
    (line,) = out.splitlines()
    record = json.loads(line)

    data, model = digits.load_digits(split="test"), aj.load_model("model")
    images = normalize(jnp.asarray(data.images), (0.3,), (0.4,))
    logits = np.asarray(model.network.apply(model.variables, images, train=False)[0])
    right = logits.argmax(1) == data.labels
    best = np.argsort(-logits, axis=1)[:, :5]
    assert record["num_images"] == 297
    assert record["correct"] == right.sum()
    assert record["top1"] == pytest.approx(right.mean())
    assert record["top5"] == pytest.approx((best == data.labels[:, None]).any(1).mean())
    likelihood = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(likelihood[np.arange(297), data.labels]).mean()
    assert record["loss"] == pytest.approx(loss, rel=1e-5)
    assert record["images_per_second"] > 0
    shares = {str(n): right[data.labels == n].mean() for n in range(10)}
    assert record["per_class_accuracy"] == pytest.approx(shares)

    assert json.loads((place / "judged/evaluation.json").read_text("utf-8")) == record
    confusion = json.loads((place / "judged/confusion.json").read_text("utf-8"))
    counts = np.array(confusion["counts"])
    np.testing.assert_array_equal(counts.sum(1), np.bincount(data.labels))
    assert np.trace(counts) == right.sum()
    picture = (place / "judged/confusion.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert main(["model", "--out", "judged"]) == 2  # never overwritten by accident
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["nowhere"], ["nowhere", "does not exist"]),
        ([], ["model_dir"]),
        (["model", "--split", "tset"], ["'tset'", "did you mean 'test'"]),
        (["model", "--data.source", "npz"], ["needs data_dir"]),
        (["model", "--data.image-size", "12"], ["8x8", "12x12", "image_size=8"]),
        (["model", "--batch-size", "0"], ["--batch-size"]),
        (["model", "--out", "model/model.json"], ["is a file"]),
        (["three"], ["3 classes", "10"]),
        (["colour"], ["3 channels", "have 1"]),
        (["silent"], ["--data.source tfds"]),
        (["broken"], ["not finite", "damaged"]),
    ],
)
def test_mistakes_are_one_line(place, capsys, argv, parts):
    write_model(place, argv[0] if argv else "model")
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err[:7]) == ("", 1, "error: ")
    for part in parts:
        assert part in err


def write_model(place, name):
    if name == "nowhere":
        return
    changes = {
        "three": {"num_classes": 3, "class_names": tuple("abc")},
        "colour": {
            "image_channels": 3,
            "normalization_mean": (0.5,) * 3,
            "normalization_std": (0.5,) * 3,
        },
        "silent": {"provenance": {"data": ["?"]}},
    }
    write_tiny_model(place / name, dataclasses.replace(SPEC, **changes.get(name, {})))
    if name == "broken":
        path = place / name / "weights.safetensors"
        whole = path.read_bytes()
        nan = np.full(10, np.nan, np.float32).tobytes()
        path.write_bytes(whole[: -len(nan)] + nan)


@pytest.mark.parametrize(
    ("recorded", "argv"),
    [(12, []), (None, ["--data.image-size", "12", "--data.center-crop"])],
)
def test_the_middle_of_larger_images_is_judged(place, capsys, recorded, argv):
    about = {"data": {"source": "digits", "image_size": recorded}}
    write_tiny_model(place / "model", dataclasses.replace(SPEC, provenance=about))
    assert main(["model", *argv]) == 0
    large = sources.load("digits", split="test", image_size=12)
    model = aj.load_model("model")
    middle = normalize(jnp.asarray(large.images[:, 2:10, 2:10]), (0.3,), (0.4,))
    logits = np.asarray(model.network.apply(model.variables, middle, train=False)[0])
    correct = (logits.argmax(1) == large.labels).sum()
    assert json.loads(capsys.readouterr().out)["correct"] == correct


def test_other_class_names_are_told(place, capsys, caplog):
    names = tuple("abcdefghij")
    write_tiny_model(place / "model", dataclasses.replace(SPEC, class_names=names))
    assert main(["model"]) == 0
    assert "names its classes differently" in caplog.text
    assert "0" in json.loads(capsys.readouterr().out)["per_class_accuracy"]
