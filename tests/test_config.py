"""Configs: recipes are valid, no knob is dead, rules are explained."""

import ast
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adarts_jax.cli.fields import leaves
from adarts_jax.cli.recipes import read_recipe
from adarts_jax.config import NetworkConfig, SearchConfig
from adarts_jax.methods import METHODS
from adarts_jax.space import topology

ROOT = Path(__file__).resolve().parent.parent
OTHERS = ("retrain_", "select_")  # see tests/train
RECIPES = sorted(
    path
    for path in (ROOT / "configs").glob("*.toml")
    if not path.name.startswith(OTHERS)
)
FIELDS = dict(leaves(SearchConfig))


def chains(source: str) -> set[str]:
    """Return what follows ``config`` in every dotted expression of a text."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            head, config, rest = ast.unparse(node).rpartition("config.")
            if config and not head.strip("self."):
                found.add(rest)
    return found


def test_every_field_is_read():
    read = set()
    for path in sorted((ROOT / "adarts_jax" / "engine").rglob("*.py")):
        read |= chains(path.read_text("utf-8"))
    dead = set(FIELDS) - read
    if "options.model_dump" in read:  # a group that is handed on whole
        dead -= {name for name in dead if name.startswith("options.")}
    assert dead == set()


def test_dead_fields_would_be_noticed():
    assert chains("a = self.config.data.pad\nb = config.seed") == {
        "data.pad",
        "data",
        "seed",
    }


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_a_help_text(name):
    assert FIELDS[name].description


def test_methods_are_those_that_exist():
    assert set(get_args(FIELDS["method"].annotation)) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_with_the_defaults(name):
    config = SearchConfig.model_validate({"method": name})
    method = METHODS[name]
    assert config.network.channel_divisor == method.channel_divisor
    assert config.architecture.initialization == method.initializations[0]
    again = SearchConfig.model_validate(config.model_dump(mode="json"))
    assert again == config


def test_defaults_are_the_digits_recipe():
    recipe = read_recipe(ROOT / "configs" / "digits.toml")
    assert SearchConfig.model_validate(recipe) == SearchConfig()
    # ... and it says so itself, instead of leaving things out
    shown = {f"{g}.{n}" for g in ("network", "weights") for n in recipe[g]}
    expected = {f for f in FIELDS if f.startswith(("network.", "weights."))}
    expected -= {"network.stem"}
    assert shown == expected


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid_and_introduced(path):
    SearchConfig.model_validate(read_recipe(path))
    text = path.read_text("utf-8")
    header = text[: text.index("\n\n")]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("Paper:", "Command:", "Cost:", "Expected:"):
        assert word in header
    assert f"configs/{path.name}" in header


def test_published_recipes_are_all_there_and_differ():
    configs = [SearchConfig.model_validate(read_recipe(path)) for path in RECIPES]
    divisors = {config.network.channel_divisor for config in configs}
    assert {4, (16, 8, 4, 4, 4, 4, 2, 1), (1, 2, 4, 4, 4, 4, 8, 16)} <= divisors
    assert len(set(configs)) == len(configs)
    assert {config.method for config in configs} == set(METHODS)


def test_configs_are_immutable_and_hashable():
    config = SearchConfig()
    with pytest.raises(ValidationError):
        config.seed = 3
    with pytest.raises(ValidationError):
        config.network.num_cells = 3
    assert hash(config) == hash(SearchConfig())


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (
            {"network": {"init_channels": 18}},
            ("network.init_channels = 18", "network.channel_divisor = 4", "16 or 20"),
        ),
        (
            {"network": {"channel_divisor": (4, 4)}},
            ("4,4 has 2 entries", "network.num_cells = 3"),
        ),
        (
            # cells of 2, 4 and 8 channels; a quarter of 4 cannot be halved
            {"network": {"init_channels": 2, "channel_divisor": (1, 4, 2)}},
            ("leaves 1 channels", "reduction cell 1", "must be even", "try 4"),
        ),
        ({"epochs": 4}, ("warmup_epochs = 4", "epochs = 4", "warmup_epochs = 0")),
        (
            {"weights": {"min_learning_rate": 0.1}},
            ("weights.min_learning_rate = 0.1", "weights.learning_rate = 0.025"),
        ),
        ({"data": {"source": "tfds"}}, ("data.name", "cifar10")),
        ({"data": {"source": "folder"}}, ("data.data_dir",)),
        (
            {"method": "darts", "network": {"channel_divisor": 4}},
            ("network.channel_divisor = 4", "darts", "make it 1"),
        ),
        (
            {"method": "darts", "architecture": {"initialization": "biased"}},
            ("initialization = biased", "darts", "plain, zero"),
        ),
        (
            {"options": {"channel_choice": "random"}},
            ("options.channel_choice", "alpha_adarts", "belongs to pc_darts"),
        ),
        (
            {"architecture": {"hessian": "exact"}},
            ("architecture.hessian = exact", "architecture.order = second"),
        ),
        (
            {
                "compat": {"att_darts": True},
                "architecture": {"order": "second", "hessian": "exact"},
            },
            ("compat.att_darts", "hessian = finite_difference"),
        ),
        (
            {"method": "random", "architecture": {"order": "second"}},
            ("architecture.order = second", "random", "leave it out"),
        ),
        (
            {"data": {"fraction": 0.5, "num_examples": 10}},
            ("data.fraction = 0.5", "data.num_examples = 10", "leave one out"),
        ),
        (
            {"compat": {"stale_step": True}, "architecture": {"order": "second"}},
            ("compat.stale_step", "architecture.order = first"),
        ),
    ],
)
def test_rules_across_fields_are_explained(values, parts):
    with pytest.raises(ValidationError) as caught:
        SearchConfig(**values)
    for part in parts:
        assert part in str(caught.value)


@given(
    channels=st.integers(1, 40),
    divisors=st.lists(st.sampled_from([1, 2, 3, 4, 8]), min_size=1, max_size=8),
)
def test_accepted_widths_are_those_that_divide(channels, divisors):
    reductions = topology.reduction_cells(len(divisors))
    fits = True
    for cell, divisor in enumerate(divisors):
        width = channels * 2 ** sum(r <= cell for r in reductions)
        fits &= width % (2 * divisor if cell in reductions else divisor) == 0
    network = NetworkConfig(
        init_channels=channels, num_cells=len(divisors), channel_divisor=tuple(divisors)
    )
    try:
        SearchConfig(network=network)
    except ValidationError as error:
        assert not fits
        advice = str(error).partition("try ")[2].split()
        suggested = [int(word) for word in advice if word.isdigit()]
        for number in suggested[:2]:
            SearchConfig(network=network.model_copy(update={"init_channels": number}))
    else:
        assert fits
