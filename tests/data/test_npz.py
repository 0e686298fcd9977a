import io
import zipfile

import numpy as np
import pytest

from adarts_jax.data.npz import load_npz
from adarts_jax.errors import UserError

PIXELS = np.random.RandomState(0).randint(0, 256, (6, 5, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def load(tmp_path, split="train", **arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    return load_npz(tmp_path / "data.npz", split=split)


def error(tmp_path, **arrays):
    with pytest.raises(UserError) as caught:
        load(tmp_path, **arrays)
    assert "data.npz" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_plain_keys_are_the_training_split(tmp_path):
    data = load(tmp_path, images=PIXELS, labels=LABELS)
    np.testing.assert_array_equal(data.images, PIXELS)
    assert data.labels.tolist() == LABELS.tolist()
    assert data.class_names == ("0", "1", "2")
    message = error(tmp_path, images=PIXELS, labels=LABELS, split="test")
    assert "no array 'test_images' for split 'test'" in message


def test_splits_share_their_classes(tmp_path):
    arrays = {
        "train_images": PIXELS,
        "train_labels": LABELS,
        "test_images": PIXELS[:2],
        "test_labels": LABELS[:2].astype(np.uint8),
    }
    test = load(tmp_path, split="test", **arrays)
    assert test.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(test.images, PIXELS[:2])
    named = load(tmp_path, **arrays, class_names=["a", "b", "ç"])
    assert named.class_names == ("a", "b", "ç")


def test_floating_point_becomes_levels(tmp_path):
    for kind in (np.float32, np.float64):
        for nudge in (0, 0.4, -0.4):
            scaled = np.clip(PIXELS.astype(kind) + nudge, 0, 255) / 255
            data = load(tmp_path, images=scaled, labels=LABELS)
            np.testing.assert_array_equal(data.images, PIXELS)


def test_grey_images_get_a_channel(tmp_path):
    data = load(tmp_path, images=PIXELS[..., 0], labels=LABELS)
    np.testing.assert_array_equal(data.images, PIXELS[..., :1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PIXELS}, "no array 'labels'"),
        ({"images": PIXELS.astype(int), "labels": LABELS}, "astype"),
        ({"images": PIXELS / 127.5 - 1, "labels": LABELS}, "outside"),
        ({"images": PIXELS * np.nan, "labels": LABELS}, "outside"),
        ({"images": PIXELS[0, 0], "labels": LABELS}, "expected (images, height"),
        ({"images": PIXELS[:, :0], "labels": LABELS}, "expected (images, height"),
        ({"images": PIXELS, "labels": LABELS[:5]}, "one per image"),
        ({"images": PIXELS, "labels": LABELS[:, None]}, "one integer per image"),
        ({"images": PIXELS, "labels": LABELS / 1.0}, "one integer per image"),
        ({"images": PIXELS, "labels": LABELS - 1}, "label -1 of image 0"),
        ({"images": PIXELS, "labels": LABELS + 2**40}, "need 'class_names'"),
        (
            {"images": PIXELS, "labels": LABELS, "class_names": ["a", "b"]},
            "label 2 of image 2",
        ),
        ({"images": PIXELS, "labels": LABELS, "class_names": [1, 2, 3]}, "strings"),
        ({"images": PIXELS.astype(object), "labels": LABELS}, "pickle"),
        ({"images": PIXELS, "labels": LABELS.astype(object)}, "pickle"),
    ],
)
def test_wrong_arrays(tmp_path, arrays, message):
    assert message in error(tmp_path, **arrays)


def test_channels_first_is_noticed(tmp_path):
    first = np.zeros((6, 3, 32, 32), np.uint8)
    assert "transpose(0, 2, 3, 1)" in error(tmp_path, images=first, labels=LABELS)


def test_files_that_are_no_npz(tmp_path):
    path = tmp_path / "data.npz"
    with pytest.raises(UserError, match="not an existing"):
        load_npz(path, split="train")
    buffer = io.BytesIO()
    np.save(buffer, PIXELS)
    for content in (b"", b"PK", buffer.getvalue(), b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"not an \.npz file"):
            load_npz(path, split="train")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", "not an array")
        archive.writestr("labels.npy", "not an array")
    with pytest.raises(UserError, match=r"data\.npz"):
        load_npz(path, split="train")


def test_declared_size_beyond_the_file(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 999, 99, 3)}
    )
    np.savez(tmp_path / "data.npz", labels=LABELS)
    with zipfile.ZipFile(tmp_path / "data.npz", "a") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(UserError, match="cannot read"):
        load_npz(tmp_path / "data.npz", split="train")
