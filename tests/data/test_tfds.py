import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adarts_jax.data import sources, tfds
from adarts_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
VERSION = "3.0.2"


@pytest.fixture(scope="module")
def prepared(shared):
    path = shared / "data" / "tfds"
    if not (path / "cifar10" / VERSION).is_dir():
        pytest.skip(f"no prepared CIFAR-10 in {path}")
    return path


@pytest.fixture
def copy(prepared, tmp_path):
    """CIFAR-10 with the test files only, writable."""
    folder = tmp_path / "cifar10" / VERSION
    folder.mkdir(parents=True)
    for file in (prepared / "cifar10" / VERSION).iterdir():
        if "train" not in file.name:
            (folder / file.name).write_bytes(file.read_bytes())
    return tmp_path


def load(data_dir, name="cifar10", split="test[:20]", **options):
    return tfds.load_tfds(name, split=split, data_dir=data_dir, **options)


def error(*arguments, **options):
    with pytest.raises(UserError) as caught:
        load(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cifar10_images_and_labels(prepared):
    data = load(prepared, split="train[:300]")
    assert data.images.shape == (300, 32, 32, 3)
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    assert set(data.labels.tolist()) == set(range(10))
    # Photographs, decoded in the right order of channels: the known mean of CIFAR-10.
    np.testing.assert_allclose(
        data.images.mean((0, 1, 2)) / 255, [0.491, 0.482, 0.446], atol=0.03
    )


def test_equals_the_decoding_of_tensorflow_datasets(prepared):
    import tensorflow_datasets

    builder: Any = tensorflow_datasets.builder_from_directory(
        str(prepared / "cifar10" / VERSION)
    )
    ours = load(prepared)
    for index, theirs in enumerate(builder.as_data_source("test[:20]")):
        np.testing.assert_array_equal(ours.images[index], theirs["image"])
        assert ours.labels[index] == theirs["label"]


def test_size_and_channels_on_request(prepared):
    data = load(prepared, image_size=16, channels=1)
    assert data.images.shape == (20, 16, 16, 1)


@pytest.mark.parametrize("held_bytes", [0, 2**29])
def test_only_wanted_images_are_decoded(prepared, monkeypatch, held_bytes):
    monkeypatch.setattr(tfds, "HELD_BYTES", held_bytes)
    everything = load(prepared)
    decoded = []

    def decode_all(items, count, **options):
        items = list(items)
        decoded.extend(name for name, _ in items)
        return decode(items, count, **options)

    decode = tfds.pictures.decode_all
    monkeypatch.setattr(tfds.pictures, "decode_all", decode_all)
    data = load(prepared, select=lambda labels: np.flatnonzero(labels == 8))
    wanted = np.flatnonzero(everything.labels == 8)
    assert 1 < len(wanted) < 20
    assert decoded == [f"cifar10 test[:20][{index}]" for index in wanted]
    np.testing.assert_array_equal(data.images, everything.images[wanted])
    assert set(data.labels.tolist()) == {8}


def test_version_may_be_named(prepared):
    load(prepared, name=f"cifar10:{VERSION}", split="test[:1]")
    message = error(prepared, name="cifar10:1.0.0")
    assert f"it has version {VERSION}" in message


def test_reads_without_tensorflow_and_quietly(prepared):
    code = (
        "import sys\n"
        "from adarts_jax.data import sources\n"
        f"data = sources.load('tfds', name='cifar10', data_dir={str(prepared)!r}, "
        "split='test[:5]')\nprint(len(data), 'tensorflow' in sys.modules, end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "5 False", done.stderr
    assert "Warning" not in done.stderr


def test_missing_data_set_fails_at_once_with_the_command(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("looked for the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text("{}")
    (tmp_path / "no data").mkdir()
    start = time.monotonic()
    message = error(tmp_path)
    assert f"'cifar10' in {str(tmp_path)!r} (it has data set mnist)" in message
    assert (
        f"tfds build cifar10 --data_dir {tmp_path} --file_format array_record"
        in message
    )
    empty = error(tmp_path / "no data")
    assert "(which is empty)" in empty
    assert f"--data_dir '{tmp_path / 'no data'}'" in empty
    assert "(which does not exist)" in error(tmp_path / "nowhere")
    assert time.monotonic() - start < 1


def test_missing_data_set_fails_within_five_seconds_as_a_program(tmp_path):
    code = (
        "from adarts_jax.data import sources\n"
        "sources.load('tfds', name='cifar100', data_dir='.', split='train')"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert time.monotonic() - start < 5
    assert "no prepared TFDS data set 'cifar100'" in done.stderr


def test_configurations_are_listed(tmp_path):
    folder = tmp_path / "svhn" / "extra" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    assert "it has configuration extra" in error(tmp_path, name="svhn")
    assert tfds.find_prepared("svhn/extra", tmp_path) == folder


def test_newest_version_by_number(tmp_path):
    for version in ("3.9.0", "3.10.0", "3.2.5"):
        folder = tmp_path / "x" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    assert tfds.find_prepared("x", tmp_path).name == "3.10.0"
    assert tfds.find_prepared("x:3.9.0", tmp_path).name == "3.9.0"


@pytest.mark.parametrize("name", ["../cifar10", "a/../b", "/etc", "a b", "x:1", ""])
def test_names_that_are_none(tmp_path, name):
    assert "is no TFDS name" in error(tmp_path, name=name)


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="elsewhere"):
        tfds.load_tfds("cifar10", split="train")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert tfds.default_data_dir() == Path("~/tensorflow_datasets")


def test_other_file_format_is_refused_with_the_conversion(copy):
    folder = copy / "cifar10" / VERSION
    file = next(folder.glob("*.array_record*"))
    file.rename(folder / file.name.replace("array_record", "tfrecord"))
    message = error(copy)
    assert "no array_record files" in message
    assert f"tfds convert_format --dataset_version_dir {folder}" in message


def test_data_converted_in_place_is_read(copy):
    info_file = copy / "cifar10" / VERSION / "dataset_info.json"
    info = json.loads(info_file.read_text())
    info |= {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    info_file.write_text(json.dumps(info))
    assert len(load(copy)) == 20
    del info["alternativeFileFormats"]
    info_file.write_text(json.dumps(info))
    assert "array_record" in error(copy)


def test_unknown_split_and_slice(prepared):
    message = error(prepared, split="tset")
    assert "no split 'tset', only train, test; did you mean 'test'?" in message
    assert "is no TFDS slice" in error(prepared, split="test[:10")
    assert "or an empty one" in error(prepared, split="test[10:10]")
    assert "no split 'train+test'" in error(prepared, split="train+test")


def test_missing_and_damaged_files(copy):
    assert "missing or damaged" in error(copy, split="train")
    file = next((copy / "cifar10" / VERSION).glob("*.array_record*"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "missing or damaged" in error(copy)
    (copy / "cifar10" / VERSION / "dataset_info.json").write_text("{")
    assert "missing or damaged" in error(copy)


def test_not_image_classification(copy):
    file = copy / "cifar10" / VERSION / "features.json"
    features = json.loads(file.read_text())
    del features["featuresDict"]["features"]["label"]
    file.write_text(json.dumps(features))
    assert "not image classification: it has id, image" in error(copy)


def test_entry_point_checks_arguments(prepared):
    with pytest.raises(UserError, match="needs the name"):
        sources.load("tfds", data_dir=prepared)
    data = sources.load(
        "tfds", name="cifar10", data_dir=str(prepared), split="test[:9]"
    )
    assert len(data) == 9
