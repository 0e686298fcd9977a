"""Configs of retraining: recipes are valid, no knob is dead, rules are explained."""

import ast
from pathlib import Path

import pytest
from pydantic import ValidationError

from adarts_jax.cli.fields import leaves
from adarts_jax.cli.recipes import read_recipe
from adarts_jax.engine.retrain_setup import epoch_pace, learning_rate
from adarts_jax.retrain_config import RetrainConfig, SelectConfig
from adarts_jax.space.published import find_genotype

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configs").glob("retrain_*.toml"))
SELECTIONS = sorted((ROOT / "configs").glob("select_*.toml"))
FIELDS = dict(leaves(SelectConfig)) | dict(leaves(RetrainConfig))


def load(name, **changes):
    recipe = read_recipe(ROOT / "configs" / f"{name}.toml")
    return RetrainConfig.model_validate({"genotype": "darts_v2"} | recipe | changes)


def make(**values):
    return RetrainConfig(genotype="darts_v2", **values)


def test_every_field_is_read():
    read = set()
    for path in (ROOT / "adarts_jax" / "engine").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                read.add(text.removeprefix("config.") if "config." in text else "")
    assert set(FIELDS) - read == set()


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_a_help_text(name):
    assert FIELDS[name].description


def test_defaults_are_the_digits_recipe():
    assert load("retrain_digits") == make()
    recipe = read_recipe(ROOT / "configs" / "select_digits.toml")
    assert SelectConfig.model_validate(recipe) == SelectConfig()


@pytest.mark.parametrize("path", [*RECIPES, *SELECTIONS], ids=lambda path: path.stem)
def test_recipes_are_valid_and_introduced(path):
    if path in RECIPES:
        find_genotype(load(path.stem).genotype)
    else:
        SelectConfig.model_validate(read_recipe(path))
    text = path.read_text("utf-8")
    header = text[: text.index("\n\n")]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("Paper:", "Command:", "Cost:", "Expected:"):
        assert word in header
    assert f"configs/{path.name}" in header


def test_published_recipes_are_as_logged():
    cifar10 = load("retrain_alpha_adarts_cifar10")
    cifar100 = load("retrain_alpha_adarts_cifar100")
    for config, batch, share in ((cifar10, 96, 0.55), (cifar100, 100, 0.5)):
        assert (config.epochs, config.batch_size) == (600, batch)
        assert config.data.cutmix_probability == share
        assert config.data.cutout_size == 0
        assert config.network.drop_path_rate == 0.3
        assert (config.network.auxiliary, config.weights.auxiliary_weight) == (
            True,
            0.4,
        )
        assert (config.network.init_channels, config.network.num_cells) == (36, 20)
    darts = load("retrain_darts_cifar10")
    assert (darts.data.cutout_size, darts.network.drop_path_rate) == (16, 0.2)


@pytest.mark.parametrize(
    ("name", "epoch", "rate"),
    [
        # methods.md 7.4 and 6.2
        ("retrain_alpha_adarts_cifar10", 0, 0.025),
        ("retrain_alpha_adarts_cifar10", 50, 0.024574),
        ("retrain_alpha_adarts_cifar10", 500, 0.001675),
        ("retrain_alpha_adarts_cifar100", 500, 0.001702),
        ("retrain_imagenet", 0, 0.1),
        ("retrain_imagenet", 2, 0.1 * 0.97**2),
        ("retrain_imagenet_pc_darts", 0, 0.1),
        ("retrain_imagenet_pc_darts", 4, 0.5),
        ("retrain_imagenet_pc_darts", 5, 0.5 * 240 / 245),
        ("retrain_imagenet_pc_darts", 245, 0.5 * 5 / (245 * 5)),
        ("retrain_imagenet_pc_darts", 249, 0.5 * 1 / (245 * 5)),
    ],
)
def test_learning_rates_are_those_of_the_originals(name, epoch, rate):
    assert learning_rate(load(name), epoch) == pytest.approx(rate, abs=5e-7)


def test_drop_path_rises_from_zero_and_never_quite_arrives():
    config = make(epochs=10, network={"drop_path_rate": 0.3})
    rates = [float(epoch_pace(config, number).drop_path_rate) for number in range(10)]
    assert rates == pytest.approx([0.03 * number for number in range(10)])


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (
            {"data": {"cutmix_probability": 0.5}, "batch_size": 1},
            ("data.cutmix_probability = 0.5", "batch_size = 1", "batch_size = 2"),
        ),
        (
            {"weights": {"min_learning_rate": 0.1}},
            ("weights.min_learning_rate = 0.1", "weights.learning_rate = 0.025"),
        ),
        ({"weights": {"warmup_epochs": 30}}, ("weights.warmup_epochs = 30", "= 30")),
        ({"weights": {"schedule_epochs": 29}}, ("schedule_epochs = 29", "none")),
        ({"data": {"crop_size": 8}}, ("data.crop_size = 8", "data.pad = 1")),
        (
            {"data": {"color_jitter": (0, 0, 0, 0.6), "crop_size": 8, "pad": 0}},
            ("hue of 0.6", "0.5"),
        ),
        ({"data": {"color_jitter": (0.4, 0, 0, 0)}}, ("0.4,0.0,0.0,0.0", "crop_size")),
        (
            {"evaluation": {"headline": "held_out_selected"}},
            ("held_out_selected", "data.held_out_fraction"),
        ),
        (
            {
                "evaluation": {"headline": "best_on_test"},
                "data": {"test_split": None},
            },
            ("best_on_test", "data.test_split"),
        ),
        ({"data": {"source": "tfds"}}, ("data.name", "cifar10")),
    ],
)
def test_rules_across_fields_are_explained(values, parts):
    with pytest.raises(ValidationError) as caught:
        make(**values)
    for part in parts:
        assert part in str(caught.value)
