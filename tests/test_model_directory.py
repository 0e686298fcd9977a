"""Model directories: what is saved comes back, what is damaged is named."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import adarts_jax as aj
from adarts_jax.model_directory import load_model, read_spec, save_model
from adarts_jax.model_spec import ModelSpec
from adarts_jax.networks.derived_network import init_variables

TINY = aj.Genotype(
    [("dil_conv_3x3", 0), ("skip_connect", 1)],
    [2],
    [("max_pool_3x3", 0), ("skip_connect", 1)],
    [2],
)
SPEC = ModelSpec(
    genotype=TINY,
    init_channels=4,
    num_cells=3,
    num_classes=3,
    stem="cifar",
    auxiliary=True,
    image_size=(32, 32),
    image_channels=1,
    normalization_mean=(0.5,),
    normalization_std=(0.25,),
    class_names=("a", "b", "ü"),
    provenance={"seed": 3, "data": {"name": "digits"}},
)


@functools.cache
def variables_of(spec_json: str):
    spec = ModelSpec.from_json(spec_json)
    return init_variables(spec.make_network(), jax.random.key(0), spec.image_shape)


def variables(spec: ModelSpec = SPEC):
    return variables_of(spec.to_json())


@pytest.fixture
def directory(tmp_path):
    save_model(tmp_path / "model", SPEC, variables())
    return tmp_path / "model"


def rewrite(directory, **changes):
    """Change entries of model.json; None removes one."""
    path = directory / "model.json"
    value = json.loads(path.read_text("utf-8")) | changes
    kept = {key: entry for key, entry in value.items() if entry is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def test_what_is_saved_comes_back(directory):
    model = aj.load_model(directory)
    assert model.spec == SPEC
    assert model.network == SPEC.make_network()
    jax.tree.map(np.testing.assert_array_equal, model.variables, variables())
    logits, auxiliary = jax.eval_shape(
        functools.partial(model.network.apply, train=False),
        model.variables,
        jnp.zeros((2, 32, 32, 1)),
    )
    assert (logits.shape, auxiliary) == ((2, 3), None)
    assert sorted(p.name for p in directory.iterdir()) == [
        "model.json",
        "weights.safetensors",
    ]


def test_weights_have_the_names_and_layouts_of_the_published_networks(directory):
    tensors = safetensors.numpy.load_file(directory / "weights.safetensors")
    assert tensors["stem.0.weight"].shape == (12, 1, 3, 3)
    assert tensors["cells.0._ops.0.op.1.weight"].shape == (4, 1, 3, 3)
    assert tensors["auxiliary_head.classifier.weight"].shape == (3, 768)


def test_the_type_of_the_arithmetic_is_the_readers_choice(directory):
    model = load_model(directory, dtype=jnp.bfloat16)
    assert model.network.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(model.variables)} == {jnp.float32.dtype}


def test_a_model_replaces_the_one_before_and_nothing_else(directory):
    (directory / "notes.txt").write_text("mine")
    changed = jax.tree.map(lambda leaf: leaf + 1, variables())
    save_model(directory, dataclasses.replace(SPEC, provenance={}), changed)
    model = load_model(directory)
    assert model.spec.provenance == {}
    jax.tree.map(np.testing.assert_array_equal, model.variables, changed)
    assert (directory / "notes.txt").read_text() == "mine"


def test_a_write_that_fails_leaves_the_old_model(directory, monkeypatch):
    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    changed = jax.tree.map(lambda leaf: leaf + 1, variables())
    with pytest.raises(aj.UserError, match="No space left"):
        save_model(directory, SPEC, changed)
    jax.tree.map(
        np.testing.assert_array_equal, load_model(directory).variables, variables()
    )
    assert len(list(directory.iterdir())) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auxiliary": False}, "auxiliary head that the spec lacks"),
        ({"num_classes": 2, "class_names": ("a", "b")}, "classifier.weight"),
        ({"num_cells": 4}, "missing"),
        ({"init_channels": 6}, "of another shape"),
        (
            {
                "image_channels": 3,
                "normalization_mean": (0.5,) * 3,
                "normalization_std": (1.0,) * 3,
            },
            "images of 1 channels, but model.json says image_channels=3",
        ),
    ],
)
def test_variables_of_another_network_are_not_saved(tmp_path, changes, message):
    with pytest.raises(aj.UserError, match=message):
        save_model(tmp_path / "m", dataclasses.replace(SPEC, **changes), variables())
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "adarts-model/2"}, "expected 'adarts-model/1'"),
        ({"format": None}, "expected 'adarts-model/1'"),
        ({"num_cels": 3}, "unknown key 'num_cels'; did you mean 'num_cells'?"),
        ({"stem": None, "num_cells": None}, "lacks num_cells, stem"),
        ({"num_cells": "3"}, "num_cells='3': expected a whole number"),
        ({"num_cells": True}, "num_cells=True: expected a whole number"),
        ({"stem": "auto"}, "stem='auto': expected one of cifar, imagenet"),
        ({"auxiliary": 1}, "auxiliary=1: expected true or false"),
        ({"image_size": 32}, "image_size=32: expected height and width"),
        ({"image_size": [8, 8]}, "use images of at least 32x32"),
        ({"normalization_std": [0]}, r"above 0"),
        ({"normalization_mean": [0.5, 0.5]}, r"\(2 values\): expected one number"),
        ({"class_names": ["a", "b"]}, r"one text per class \(num_classes=3\)"),
        ({"class_names": "abc"}, "one text per class"),
        ({"provenance": []}, "expected an object"),
        ({"genotype": {"format": "?"}}, "not a genotype"),
        ({"num_cells": 4}, "weights.safetensors does not fit model.json"),
        ({"num_classes": 2, "class_names": ["a", "b"]}, "classifier.weight"),
    ],
)
def test_a_bad_model_json_is_explained_in_one_line(directory, changes, message):
    rewrite(directory, **changes)
    with pytest.raises(aj.UserError, match=message) as caught:
        load_model(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "cannot read"),
        (b"[1]", "expected a JSON object"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"1" * 5_000_000 + b"}", "too large"),
    ],
)
def test_a_model_json_that_is_none_is_explained(directory, content, message):
    (directory / "model.json").write_bytes(content)
    with pytest.raises(aj.UserError, match=message) as caught:
        read_spec(directory)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("keep", [0, 6, 100, -1])
def test_truncated_weights_are_noticed(directory, keep):
    path = directory / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(aj.UserError, match="damaged, incomplete or no safetensors"):
        load_model(directory)


def test_names_in_a_file_do_not_fill_the_message(directory):
    path = directory / "weights.safetensors"
    tensors = safetensors.numpy.load_file(path)
    extra = {f"{n}{'x' * 50_000}": tensors["stem.0.weight"] for n in range(5)}
    safetensors.numpy.save_file(tensors | extra, path)
    with pytest.raises(aj.UserError, match=r"5 unexpected: 0xxx.*x\.\.\., ") as caught:
        load_model(directory)
    assert len(str(caught.value)) < 1000


def test_weights_that_are_not_finite_are_refused(directory):
    path = directory / "weights.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors["stem.0.weight"][0, 0, 0, 0] = np.inf
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(aj.UserError, match=r"not finite \(stem.0.weight\); copy it"):
        load_model(directory)


def test_a_claim_of_many_cells_is_refused_at_once(directory):
    rewrite(directory, num_cells=1000)
    with pytest.raises(
        aj.UserError, match="too few for num_cells=1000; use the number"
    ):
        load_model(directory)


def test_weights_of_another_type_are_refused(directory):
    path = directory / "weights.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors["stem.0.weight"] = tensors["stem.0.weight"].astype(np.float16)
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(aj.UserError, match=r"not float32: stem.0.weight F16"):
        load_model(directory)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_is_named(directory, name):
    (directory / name).unlink()
    with pytest.raises(aj.UserError, match=f"it has no {name} "):
        load_model(directory)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(aj.UserError, match="it does not exist"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(aj.UserError):
        load_model(tmp_path / "file")


def test_text_survives_an_ascii_only_file(directory):
    assert (directory / "model.json").read_bytes().isascii()
    assert read_spec(directory).class_names[2] == "ü"
