import io

import numpy as np
import pytest
from PIL import Image

from adarts_jax.data import images, sources
from adarts_jax.errors import UserError


def test_digits_splits_are_fixed_disjoint_and_stratified():
    train, test = (sources.load("digits", split=s) for s in ("train", "test"))
    assert train.images.shape == (1500, 8, 8, 1)
    assert test.images.shape == (297, 8, 8, 1)
    assert train.class_names == test.class_names == tuple("0123456789")
    assert train.images.min() == 0
    assert train.images.max() == 255
    overall = np.bincount(np.concatenate([train.labels, test.labels]))
    for data in (train, test):
        counts = np.bincount(data.labels)
        assert abs(counts - overall * len(data) / 1797).max() <= 1
    # The 1797 scans are all different, so a shared image would show.
    rows = np.concatenate([train.images, test.images]).reshape(1797, -1)
    assert len(np.unique(rows, axis=0)) == 1797
    assert images.fingerprint(test).startswith("f661b00b6b2a9321")


def test_digits_labels_belong_to_their_images():
    train, test = (sources.load("digits", split=s) for s in ("train", "test"))
    known = train.images.reshape(1500, 64).astype(float)
    asked = test.images.reshape(297, 64).astype(float)
    distance = ((asked[:, None] - known[None]) ** 2).sum(-1)
    assert (train.labels[distance.argmin(1)] == test.labels).mean() > 0.95


def test_digits_are_resized_on_request():
    data = sources.load("digits", image_size=16)
    assert data.image_shape == (16, 16, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "didgits"}, "did you mean 'digits'"),
        ({"source": "digits", "split": "tran"}, "did you mean 'train'"),
        ({"source": "digits", "split": "val"}, "only 'train' and 'test'"),
        ({"source": "digits", "data_dir": "pictures"}, "is built in"),
        ({"source": "digits", "name": "cifar10"}, "is built in"),
        ({"source": "digits", "channels": 3}, "digits data has 1"),
        ({"source": "digits", "channels": 2}, "channels=2 must be"),
        ({"source": "digits", "image_size": 0}, "image_size=0"),
        ({"source": "folder"}, "needs data_dir"),
        ({"source": "npz"}, "needs data_dir"),
        ({"source": "folder", "data_dir": "/nowhere"}, "not an existing folder"),
        ({"source": "npz", "data_dir": "/nowhere.npz"}, "not an existing .npz"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        sources.load(**arguments)
    assert "\n" not in str(caught.value)


def test_folder_with_one_class(tmp_path):
    (tmp_path / "flowers" / "train" / "rose").mkdir(parents=True)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    for name in ("rose", "iris"):
        path = tmp_path / "flowers" / "train" / name / "a.png"
        with pytest.raises(UserError, match=r"has one class \('rose'\)|no \.png"):
            sources.load("folder", data_dir=tmp_path, name="flowers")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture.getvalue())
    data = sources.load("folder", data_dir=str(tmp_path), name="flowers", image_size=4)
    assert data.class_names == ("iris", "rose")
    assert data.image_shape == (4, 4, 3)


def test_npz_in_a_folder_and_alone(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (4, 8, 8, 2), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=[0, 1, 0, 1])
    named = sources.load("npz", data_dir=tmp_path, name="a.npz")
    alone = sources.load("npz", data_dir=tmp_path / "a.npz")
    assert images.fingerprint(named) == images.fingerprint(alone)
    small = sources.load("npz", data_dir=tmp_path / "a.npz", image_size=4)
    assert small.image_shape == (4, 4, 2)
    np.savez(tmp_path / "one.npz", images=pixels, labels=[0, 0, 0, 0])
    with pytest.raises(UserError, match="has one class"):
        sources.load("npz", data_dir=tmp_path / "one.npz")
