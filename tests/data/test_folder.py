import logging
import random
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from adarts_jax.data import folder, pictures
from adarts_jax.errors import UserError

RED, BLUE = (200, 10, 30), (10, 20, 220)


def save(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(np.asarray(picture, np.uint8))
    picture.save(path, **options)


def plain(colour, size=(8, 8)):
    return Image.new("RGB", size, colour)


@pytest.fixture
def root(tmp_path):
    """Two classes, three training pictures each, one for testing."""
    for split, count in (("train", 3), ("test", 1)):
        for name, colour in (("zebra", RED), ("ant", BLUE)):
            for index in range(count):
                save(tmp_path / split / name / f"{index}.png", plain(colour))
    return tmp_path


def error(root, split="train", **options):
    with pytest.raises(UserError) as caught:
        folder.load_folder(root, split=split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pictures_in_the_order_of_class_names_and_file_names(root):
    save(root / "train" / "zebra" / "00.PNG", plain((1, 2, 3)))
    save(root / "train" / "ant" / "x.JpEg", plain(BLUE), quality=100)
    (root / "train" / "ant" / "notes.txt").write_text("not a picture")
    (root / "train" / "ant" / "._0.png").write_bytes(b"resource fork")
    (root / "train" / ".thumbnails").mkdir()
    (root / "__MACOSX").mkdir()
    data = folder.load_folder(root, split="train")
    assert data.class_names == ("ant", "zebra")
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    assert data.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(data.images[0, 0, 0], BLUE)
    # "0.png" sorts before "00.PNG".
    np.testing.assert_array_equal(data.images[5, 0, 0], (1, 2, 3))


def test_class_missing_in_a_split_keeps_its_label(root, caplog):
    shutil.rmtree(root / "test" / "ant")
    with caplog.at_level(logging.WARNING):
        data = folder.load_folder(root, split="test")
    assert data.class_names == ("ant", "zebra")
    assert data.labels.tolist() == [1]
    assert "no picture of ant" in caplog.text


def test_unicode_names_agree_across_systems(root):
    composed, apart = (unicodedata.normalize(f, "Käfer 🐞") for f in ("NFC", "NFD"))
    save(root / "train" / composed / "ü.png", plain(RED))
    save(root / "test" / apart / "é.png", plain(RED))
    for split in ("train", "test"):
        data = folder.load_folder(root, split=split)
        assert data.class_names == (composed, "ant", "zebra")
        assert 0 in data.labels


def modes():
    """Pictures of a red square in every mode, and what must be read."""
    rng = np.random.RandomState(0)
    grey = rng.randint(0, 256, (8, 8), dtype=np.uint8)
    grey3 = np.repeat(grey[..., None], 3, 2)
    red = np.broadcast_to(np.array(RED, np.uint8), (8, 8, 3))
    clear = np.dstack([red, np.where(np.arange(64).reshape(8, 8) < 32, 255, 0)])
    shown = np.where(clear[..., 3:] == 255, red, 255)
    palette = Image.fromarray(red).quantize(4)
    two = Image.new("P", (8, 8), 0)
    two.putpalette([*RED, 0, 0, 0])
    two.paste(1, (0, 4, 8, 8))
    return {
        "grey.png": (Image.fromarray(grey), {}, grey3),
        "grey.jpg": (
            Image.new("L", (8, 8), 77),
            {"quality": 100},
            np.full((8, 8, 3), 77),
        ),
        "grey_alpha.png": (
            Image.fromarray(np.dstack([grey, clear[..., 3].astype(np.uint8)])),
            {},
            np.where(clear[..., 3:] == 255, grey3, 255),
        ),
        "sixteen.png": (Image.fromarray(grey.astype(np.uint16) * 257), {}, grey3),
        "bits.png": (Image.fromarray(grey > 99), {}, np.where(grey3 > 99, 255, 0)),
        "rgba.png": (Image.fromarray(clear.astype(np.uint8)), {}, shown),
        "palette.png": (palette, {}, red),
        "palette_clear.png": (two, {"transparency": 1}, shown),
        "cmyk.jpg": (Image.fromarray(red).convert("CMYK"), {"quality": 100}, red),
    }


@pytest.mark.parametrize("name", modes())
def test_every_mode_becomes_rgb(tmp_path, name):
    picture, options, expected = modes()[name]
    save(tmp_path / name, picture, **options)
    pixels = pictures.decode(tmp_path / name).astype(int)
    assert pixels.shape == (8, 8, 3)
    tolerance = 3 if name.endswith("jpg") else 0
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=tolerance)


def test_sixteen_bit_keeps_the_upper_eight(tmp_path):
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    save(tmp_path / "deep.png", Image.fromarray(values))
    grey = pictures.decode(tmp_path / "deep.png", channels=1)
    assert grey[0, :, 0].tolist() == [0, 0, 1, 255]


def test_exif_orientation_turns_the_picture(tmp_path):
    halves = plain(RED, (16, 8))
    halves.paste(BLUE, (8, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways: turn by 90 degrees clockwise
    save(tmp_path / "upright.jpg", halves, quality=100, exif=exif)
    pixels = pictures.decode(tmp_path / "upright.jpg").astype(int)
    assert pixels.shape == (16, 8, 3)
    assert abs(pixels[0] - RED).max() < 60
    assert abs(pixels[-1] - BLUE).max() < 60


def test_one_channel_is_luminance(root):
    data = folder.load_folder(root, split="train", channels=1)
    assert data.image_shape == (8, 8, 1)
    weights = np.array([0.299, 0.587, 0.114])
    assert abs(int(data.images[0, 0, 0, 0]) - weights @ BLUE) < 1


def test_sizes_may_differ_only_if_resized(root):
    save(root / "train" / "zebra" / "wide.png", plain(RED, (12, 6)))
    message = error(root)
    for part in ("ant/0.png' is 8x8", "zebra/wide.png' is 12x6", "image_size"):
        assert part in message
    data = folder.load_folder(root, split="train", image_size=5)
    assert data.image_shape == (5, 5, 3)
    np.testing.assert_array_equal(data.images[-1], np.broadcast_to(RED, (5, 5, 3)))


def test_large_jpeg_is_shrunk_as_a_whole(tmp_path):
    halves = plain(RED, (640, 320))
    halves.paste(BLUE, (320, 0, 640, 320))
    save(tmp_path / "big.jpg", halves)
    small = pictures.decode(tmp_path / "big.jpg", image_size=8).astype(int)
    assert small.shape == (8, 8, 3)
    assert abs(small[:, :3] - RED).max() < 12
    assert abs(small[:, 5:] - BLUE).max() < 12


def test_resize_images_equals_decoding_with_a_size(tmp_path):
    values = np.random.RandomState(3).randint(0, 256, (1, 9, 7, 3), dtype=np.uint8)
    save(tmp_path / "a.png", values[0])
    resized = pictures.resize_images(values, 4)
    np.testing.assert_array_equal(
        resized[0], pictures.decode(tmp_path / "a.png", image_size=4)
    )


def test_unreadable_pictures_are_named_up_to_ten(root):
    whole = (root / "train" / "ant" / "0.png").read_bytes()
    for index in range(12):
        (root / "train" / "ant" / f"cut{index:02}.png").write_bytes(whole[:40])
    (root / "train" / "zebra" / "empty.jpg").write_bytes(b"")
    (root / "train" / "zebra" / "page.jpg").write_text("<html>not found</html>")
    message = error(root)
    assert "cannot read 14 pictures" in message
    assert "cut09.png' (" in message
    assert "cut10.png" not in message
    assert "and 4 more" in message


def test_truncated_jpeg_is_named(root):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)
    path = root / "train" / "ant" / "half.jpg"
    save(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = error(root, image_size=8)
    assert "cannot read 1 picture:" in message
    assert "half.jpg' (" in message
    assert "truncated" in message


def test_other_formats_in_disguise_are_not_decoded(root):
    save(root / "train" / "ant" / "evil.png", plain(RED), format="TIFF")
    assert "evil.png' (not a PNG or JPEG picture)" in error(root)


def test_decompression_bomb_is_refused(root, monkeypatch):
    save(root / "train" / "ant" / "bomb.png", plain(RED, (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    message = error(root, image_size=8)
    assert "bomb.png" in message
    assert "decompression bomb" in message


def test_more_pixels_than_memory_is_refused(root, monkeypatch):
    monkeypatch.setattr(pictures.os, "sysconf", lambda _: 30)  # 30 pages of 30 bytes
    assert "6 pictures of 8x8 pixels need" in error(root)
    assert len(folder.load_folder(root, split="train", image_size=7)) == 6


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_random_damage_never_escapes(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (16, 16, 3), dtype=np.uint8)
    save(tmp_path / "a.png", noise, optimize=True)
    save(tmp_path / "a.jpg", noise, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0")
    rng = random.Random(0)
    damaged = 0
    for name in ("a.png", "a.jpg"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(300):
            broken = bytearray(whole)
            for _ in range(rng.randint(1, 8)):
                broken[rng.randrange(min(len(broken), 400))] = rng.randrange(256)
            path = tmp_path / f"b{name}"
            path.write_bytes(broken[: rng.randint(1, len(broken))])
            try:
                pictures.decode(path, image_size=8)
            except pictures.PictureError:
                damaged += 1
    assert damaged > 300


def test_parallel_decoding_gives_the_same(root, monkeypatch):
    for index in range(40):
        noise = np.random.RandomState(index).randint(0, 256, (8, 8, 3), dtype=np.uint8)
        save(root / "train" / "ant" / f"n{index}.png", noise)
    alone = folder.load_folder(root, split="train")
    monkeypatch.setattr(pictures, "THREADED_BYTES", 0)
    monkeypatch.setattr(pictures, "CHUNK", 7)
    together = folder.load_folder(root, split="train")
    np.testing.assert_array_equal(alone.images, together.images)


def test_folders_that_are_not_there(root):
    assert "is not an existing folder" in error(root / "nowhere")
    (root / "void").mkdir()
    assert "has no folders in it" in error(root / "void")
    message = error(root, split="trian")
    assert "no split 'trian'" in message
    assert "only 'test', 'train', 'void'" in message
    assert "did you mean 'train'" in message
    assert "has no class folder" in error(root, split="void")


def test_empty_class_is_named(root):
    (root / "train" / "bee").mkdir()
    (root / "train" / "bee" / "scan.webp").write_bytes(b"RIFF")
    assert "picture of class 'bee' in" in error(root)


def test_folder_that_cannot_be_listed(root):
    with pytest.raises(UserError, match="cannot list"):
        folder.list_pictures(root / "train" / "ant" / "0.png")


def test_channels_are_checked(root):
    assert "channels=4" in error(root, channels=4)


def test_pictures_that_are_not_selected_are_never_opened(root, monkeypatch):
    opened = []
    open_picture = Image.open

    def noted(source, *args, **options):
        opened.append(source)
        return open_picture(source, *args, **options)

    monkeypatch.setattr(Image, "open", noted)
    (root / "train" / "zebra" / "1.png").write_bytes(b"damaged")
    seen = []

    def select(labels):
        seen.append(labels)
        return np.array([1, 5])

    data = folder.load_folder(root, split="train", select=select)
    assert seen[0].tolist() == [0, 0, 0, 1, 1, 1]
    assert opened == [root / "train" / "ant" / "1.png", root / "train/zebra/2.png"]
    assert data.labels.tolist() == [0, 1]
    assert data.class_names == ("ant", "zebra")
    np.testing.assert_array_equal(data.images[:, 0, 0], [BLUE, RED])
