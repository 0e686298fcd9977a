"""What a search does before it touches a device: images and splits."""

import numpy as np
import pytest
from PIL import Image

from adarts_jax.config import CompatConfig, SearchConfig
from adarts_jax.data import sources
from adarts_jax.engine import search_problem, search_program, search_setup
from adarts_jax.engine.search_epoch import SearchData
from adarts_jax.errors import UserError

CLASSES, PER_CLASS, SIDE = 3, 40, 32


@pytest.fixture
def root(tmp_path):
    """Every picture has a colour of its own: (class, number, 0)."""
    for name in range(CLASSES):
        place = tmp_path / "train" / f"class_{name}"
        place.mkdir(parents=True)
        for number in range(PER_CLASS):
            picture = Image.new("RGB", (SIDE, SIDE), (name, number, 0))
            picture.save(place / f"{number:03}.png")
    return tmp_path


def imagenet_like(root):
    """10 % and 2.5 % of every class, as PC-DARTS searches on ImageNet."""
    data = {
        "source": "folder",
        "data_dir": str(root),
        "split": "balanced",
        "fraction": 0.125,
        "weight_fraction": 0.8,
    }
    return SearchConfig.model_validate({"data": data, "batch_size": 3})


def prepare(config, place, **options):
    return search_setup.prepare(
        config, place, **({"resume": False, "overwrite": False} | options)
    )


def test_a_class_balanced_part_of_imagenet_is_all_that_is_read(root, tmp_path):
    start = prepare(imagenet_like(root), tmp_path / "run")
    assert len(start.data) == CLASSES * 5
    assert start.data.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert start.parts.num_examples == CLASSES * PER_CLASS
    for indices, count in (
        (start.parts.weight_indices, 4),
        (start.parts.architecture_indices, 1),
    ):
        assert np.bincount(indices // PER_CLASS).tolist() == [count] * CLASSES
    # the same pictures from the saved indices, whatever became of all others
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    start.parts.save(tmp_path / "run" / "splits.json")
    (tmp_path / "run" / "config.json").write_text(imagenet_like(root).model_dump_json())
    files = sorted((root / "train").rglob("*.png"))
    for index in np.setdiff1d(np.arange(len(files)), start.parts.used):
        files[index].write_bytes(b"damaged")
    again = prepare(imagenet_like(root), tmp_path / "run", resume=True)
    np.testing.assert_array_equal(again.data.images, start.data.images)
    np.testing.assert_array_equal(again.parts.used, start.parts.used)
    files[0].unlink()
    with pytest.raises(UserError, match="started with other images"):
        prepare(imagenet_like(root), tmp_path / "run", resume=True)


@pytest.mark.parametrize("split", ["random", "positional", "balanced"])
def test_the_device_has_the_images_of_both_splits(split, tmp_path):
    config = SearchConfig.model_validate(
        {"data": {"split": split, "num_examples": 200, "weight_fraction": 0.7}}
    )
    start, whole = prepare(config, tmp_path / "run"), sources.load("digits")
    data: SearchData = search_program.put_data(start, np.zeros(2))  # pyright: ignore[reportArgumentType]
    assert len(data.images) == len(start.parts.used) < len(whole)
    for places, indices in (
        (data.weight_indices, start.parts.weight_indices),
        (data.architecture_indices, start.parts.architecture_indices),
    ):
        np.testing.assert_array_equal(data.images[places], whole.images[indices])
        np.testing.assert_array_equal(data.labels[places], whole.labels[indices])


@pytest.mark.parametrize(("index", "last"), [("epoch", 0.0067), ("next_epoch", 0.0)])
def test_the_learning_rate_of_the_published_scripts_is_one_epoch_ahead(index, last):
    config = SearchConfig.model_validate(
        {"epochs": 6, "compat": {"lr_index": index}, "weights": {"learning_rate": 0.1}}
    )
    rates = [search_setup.epoch_pace(config, e).weight_learning_rate for e in range(6)]
    np.testing.assert_allclose(rates[-1], last, atol=1e-4)
    assert (rates[0] == np.float32(0.1)) == (index == "epoch")


def test_oddities_of_the_originals_are_off_unless_asked_for(root, tmp_path):
    off = imagenet_like(root).compat
    assert off == CompatConfig(
        lr_index="epoch",
        stale_step=False,
        architecture_batches="fresh",
        att_darts=False,
    )

    def problem(**compat):
        values = imagenet_like(root).model_dump() | {"compat": compat}
        config = SearchConfig.model_validate(values)
        return search_problem.make_problem(config, start)

    start = prepare(imagenet_like(root), tmp_path / "run")
    assert problem().repeat_every is None
    assert not problem().one_pass
    assert not problem().copies_att_darts
    assert problem(stale_step=True).repeat_every == 4
    assert problem(architecture_batches="one_pass").one_pass
    assert problem(att_darts=True).copies_att_darts
