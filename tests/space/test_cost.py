"""Costs: every integer of the originals, and the structure behind multiply-adds."""

import doctest
import gzip
import json
import math

import pytest

from adarts_jax.errors import UserError
from adarts_jax.space import attention_cost, cost, operation_cost, stack
from adarts_jax.space.attention_cost import ATTENTION_COSTS
from adarts_jax.space.cost import (
    auxiliary_head_cost,
    derived_network_cost,
    search_network_cost,
)
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.operation_cost import OPERATION_COSTS, Cost
from adarts_jax.space.operations import (
    ALPHA_ADARTS_PRIMITIVES,
    ATTENTIONS,
    DARTS_PRIMITIVES,
    OPERATIONS,
)
from adarts_jax.space.published import PUBLISHED, RECORDS

IMAGENET = {"init_channels": 48, "num_cells": 14, "num_classes": 1000}
DARTS_V2 = PUBLISHED["darts_v2"]
KNOWN = [name for name, record in RECORDS.items() if record.cifar10_parameters]


def test_examples_in_the_documentation():
    assert sum(doctest.testmod(m).attempted for m in (cost, operation_cost)) >= 3
    assert not any(doctest.testmod(m).failed for m in (cost, operation_cost, stack))


def test_every_name_has_a_cost():
    assert set(OPERATION_COSTS) == set(OPERATIONS)
    assert set(ATTENTION_COSTS) == set(ATTENTIONS)


# --- whole networks, against published integers -------------------------------------


@pytest.mark.parametrize("name", KNOWN)
def test_derived_networks(name):
    record = RECORDS[name]
    ten = derived_network_cost(record.genotype)
    hundred = derived_network_cost(record.genotype, num_classes=100)
    assert ten.parameters == record.cifar10_parameters
    assert hundred.parameters == record.cifar100_parameters
    if record.imagenet_parameters:
        imagenet = derived_network_cost(record.genotype, stem="imagenet", **IMAGENET)
        assert imagenet.parameters == record.imagenet_parameters


def test_the_published_integers_themselves():
    """Guards the table against being edited to fit."""
    numbers = {
        "darts_v1": (3_169_414, 3_221_344, None),
        "darts_v2": (3_349_342, 3_401_272, 4_718_752),
        "pc_darts_cifar": (3_634_678, 3_686_608, 5_270_560),
        "pc_darts_image": (3_721_510, 3_773_440, 5_342_464),
        "adarts_v1": (2_897_902, 2_949_832, None),
        "adarts_v2": (3_394_486, 3_446_416, None),
        "alpha_adarts": (3_285_838, 3_337_768, None),
        "alpha_adarts_unused": (3_031_606, 3_083_536, None),
        "alpha_adarts_2": (3_543_742, 3_595_672, None),
        "att_darts": (3_231_343, 3_283_273, 4_641_666),
    }
    for name, expected in numbers.items():
        record = RECORDS[name]
        assert expected == (
            record.cifar10_parameters,
            record.cifar100_parameters,
            record.imagenet_parameters,
        )
    assert set(KNOWN) == set(numbers)


def test_auxiliary_head():
    assert auxiliary_head_cost(DARTS_V2).parameters == 476_426
    assert auxiliary_head_cost(DARTS_V2, num_classes=100).parameters == 545_636
    cifar = auxiliary_head_cost(DARTS_V2, init_channels=48, num_cells=14, size=32)
    imagenet = auxiliary_head_cost(
        DARTS_V2, init_channels=48, num_cells=14, stem="imagenet"
    )
    assert cifar.parameters - imagenet.parameters == 2 * 768  # no second batch norm
    assert imagenet.multiply_adds == cifar.multiply_adds
    assert imagenet.multiply_adds == 768 * 128 * 4 + 128 * 768 * 4 + 768 * 10


@pytest.mark.parametrize("size", [16, 48, 224])
def test_auxiliary_head_needs_its_map(size):
    with pytest.raises(UserError, match="after cell 13"):
        auxiliary_head_cost(DARTS_V2, size=size)


@pytest.mark.parametrize(
    ("expected", "primitives", "options"),
    [
        (1_930_618, DARTS_PRIMITIVES, {}),
        (299_578, DARTS_PRIMITIVES, {"channel_divisors": 4}),
        (
            521_786,
            DARTS_PRIMITIVES,
            {"channel_divisors": 4, "channel_attention": "adarts"},
        ),
        (
            433_978,
            ALPHA_ADARTS_PRIMITIVES,
            {"channel_divisors": 4, "channel_attention": "alpha_adarts"},
        ),
        (
            903_034,
            ALPHA_ADARTS_PRIMITIVES,
            {
                "channel_divisors": (16, 8, 4, 4, 4, 4, 2, 1),
                "channel_attention": "alpha_adarts",
            },
        ),
        (
            416_170,
            ALPHA_ADARTS_PRIMITIVES,
            {
                "channel_divisors": (1, 2, 4, 4, 4, 4, 8, 16),
                "channel_attention": "alpha_adarts",
            },
        ),
        (3_309_282, DARTS_PRIMITIVES, {"edge_attentions": ATTENTIONS}),
    ],
    ids=["DARTS", "PC", "ADARTS", "alpha", "alpha 16_1", "alpha 2023", "Att"],
)
def test_search_networks(expected, primitives, options):
    assert search_network_cost(primitives, **options).parameters == expected


def test_search_network_divisors_are_checked():
    with pytest.raises(UserError, match="16 channels of cell 0"):
        search_network_cost(DARTS_PRIMITIVES, channel_divisors=5)
    with pytest.raises(UserError, match="2 values for 8 cells"):
        search_network_cost(DARTS_PRIMITIVES, channel_divisors=[4, 4])


# --- whole networks, against the shapes of the originals' weights --------------------

SEARCH_FIXTURES = {
    "B1_alpha_small": (
        ALPHA_ADARTS_PRIMITIVES,
        {"channel_divisors": 4, "channel_attention": "alpha_adarts"},
    ),
    "B2_alpha16_small": (
        ALPHA_ADARTS_PRIMITIVES,
        {
            "channel_divisors": (16, 8, 4, 4, 4, 4, 2, 1),
            "channel_attention": "alpha_adarts",
        },
    ),
    "B3_pc_small": (DARTS_PRIMITIVES, {"channel_divisors": 4}),
    "B3_pc_imagenet_small": (
        DARTS_PRIMITIVES,
        {"channel_divisors": 2, "stem": "imagenet", "size": 64},
    ),
    "B4_darts_small": (DARTS_PRIMITIVES, {}),
    "B5_att_after_every_1cell": (DARTS_PRIMITIVES, {"edge_attentions": ATTENTIONS}),
    "B5_att_after_every_3cells": (DARTS_PRIMITIVES, {"edge_attentions": ATTENTIONS}),
}
DERIVED_FIXTURES = {
    "A1_alphaadarts_cifar10_full": {},
    "A2_alphaadarts_cifar100_full": {},
    "A3_alpha_NASNet": {},
    "A3_alpha_AmoebaNet": {},
    "A3_alpha_allops": {},
    "A3_alpha_genotype1": {},
    "A4_darts_imagenet_DARTS_V2": {"stem": "imagenet"},
    "A5_att_cifar10_small": {},
    "A5_att_cifar100_small": {},
}
NOT_WEIGHTS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def goldens(shared):
    """Fixture name -> (constructor arguments and genotype, state-dict shapes)."""
    folder = shared / "golden"
    with gzip.open(folder / "state_dict_specs.json.gz", "rt") as file:
        shapes = json.load(file)
    fixtures = json.loads((folder / "index.json").read_text("utf-8"))
    return {f["name"]: (f, shapes.get(f["name"])) for f in fixtures}


def count(shapes, *, auxiliary=False):
    """Weights of a state dict; architecture parameters are not network weights."""
    return sum(
        math.prod(shape)
        for key, shape in shapes.items()
        if not key.endswith(NOT_WEIGHTS)
        and not key.startswith(("alphas", "betas"))
        and key.startswith("auxiliary") == auxiliary
    )


def network_options(fixture):
    ctor = fixture["ctor"]
    return {
        "init_channels": ctor["C"],
        "num_cells": ctor["layers"],
        "num_classes": ctor["num_classes"],
    }


@pytest.mark.parametrize("name", SEARCH_FIXTURES)
def test_search_network_has_the_weights_of_the_original(goldens, name):
    fixture, shapes = goldens[name]
    primitives, options = SEARCH_FIXTURES[name]
    computed = search_network_cost(primitives, **network_options(fixture), **options)
    assert computed.parameters == count(shapes)


@pytest.mark.parametrize("name", DERIVED_FIXTURES)
def test_derived_network_has_the_weights_of_the_original(goldens, name):
    fixture, shapes = goldens[name]
    options = network_options(fixture) | DERIVED_FIXTURES[name]
    fields = {k: v for k, v in fixture["genotype"].items() if "bottleneck" not in k}
    genotype = Genotype(**fields)
    assert derived_network_cost(genotype, **options).parameters == count(shapes)
    if fixture["ctor"]["auxiliary"]:
        head = auxiliary_head_cost(genotype, **options)
        assert head.parameters == count(shapes, auxiliary=True)


# --- multiply-adds --------------------------------------------------------------------


def test_imagenet_multiply_adds():
    """529,911,552 and 581,627,328 were also counted by hooks on a PyTorch network.

    The papers print 574M and 597M; users of the originals count less, like us
    (quark0/darts issue 46).
    """
    for name, expected in (("darts_v2", 529_911_552), ("pc_darts_image", 581_627_328)):
        computed = derived_network_cost(PUBLISHED[name], stem="imagenet", **IMAGENET)
        assert computed.multiply_adds == expected


@pytest.mark.parametrize(
    ("name", "stride", "expected"),
    [
        ("none", 1, Cost(0, 0)),
        ("max_pool_5x5", 2, Cost(0, 0)),
        ("skip_connect", 1, Cost(0, 0)),
        ("skip_connect", 2, Cost(4 * 4 + 8, 16 * 12)),
        ("sep_conv_3x3", 1, Cost(2 * (36 + 16 + 8), 48 * 2 * (36 + 16))),
        ("sep_conv_3x3", 2, Cost(2 * (36 + 16 + 8), 12 * 2 * (36 + 16))),
        ("sep_conv_7x7", 2, Cost(2 * (196 + 16 + 8), 12 * 2 * (196 + 16))),
        ("dil_conv_5x5", 1, Cost(100 + 16 + 8, 48 * (100 + 16))),
        ("conv_7x1_1x7", 1, Cost(2 * 112 + 8, 48 * 112 + 48 * 112)),
        ("conv_7x1_1x7", 2, Cost(2 * 112 + 8, 24 * 112 + 12 * 112)),
    ],
)
def test_operations_by_hand(name, stride, expected):
    """4 channels on a map of height 8 and width 6."""
    operation = OPERATION_COSTS[name]
    assert operation(4, 4, stride, 8, 6) == expected
    searched = operation(4, 4, stride, 8, 6, affine=False)
    assert searched.multiply_adds == expected.multiply_adds
    affine = {"sep": 16, "dil": 8, "con": 8}.get(name[:3], 8 if stride == 2 else 0)
    if expected.parameters:
        assert expected.parameters - searched.parameters == affine


def test_odd_sizes_round_up():
    odd = OPERATION_COSTS["dil_conv_3x3"](4, 4, 2, 7, 5)
    assert odd.multiply_adds == 4 * 3 * (36 + 16)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Identity", (0, 0, 0)),
        ("SE", (32, 128, 512)),
        ("BAM", (96, 323, 1173)),
        ("CBAM", (149, 262, 680)),
        ("GE_theta-plus", (16_448, 8_384, 4_736)),
        ("DoubleAttention", (284, 1_080, 4_208)),
    ],
)
def test_attention_modules(name, parameters):
    sizes = ((16, 32), (32, 16), (64, 8))
    costs = [ATTENTION_COSTS[name](channels, side, side) for channels, side in sizes]
    assert tuple(c.parameters for c in costs) == parameters


def test_attention_multiply_adds_by_hand():
    """16 channels, 4 x 2 map: 1 squeezed channel, a quarter is 4."""
    expected = {
        "SE": 32,
        "BAM": 32 + 8 * (16 + 9 + 9 + 1),
        "CBAM": 2 * 32 + 8 * 49 * 2,
        "GE_theta-plus": 8 * 16 + 32,
        "DoubleAttention": 8 * (4 * 64 + 2 * 16),
    }
    for name, multiply_adds in expected.items():
        computed = attention_cost.ATTENTION_COSTS[name](16, 4, 2)
        assert computed.multiply_adds == multiply_adds


def test_channel_attention_by_hand():
    """One cell, one node, both edges at 16 channels: what attention adds."""
    small = {"num_nodes": 1, "num_cells": 3, "init_channels": 16}
    plain = search_network_cost(DARTS_PRIMITIVES, **small)
    adarts = search_network_cost(DARTS_PRIMITIVES, channel_attention="adarts", **small)
    alpha = search_network_cost(
        DARTS_PRIMITIVES, channel_attention="alpha_adarts", **small
    )
    widths = (16, 32, 64)
    assert adarts.parameters - plain.parameters == 2 * sum(c * c for c in widths)
    assert adarts.multiply_adds - plain.multiply_adds == 4 * sum(c * c for c in widths)
    assert alpha.parameters - plain.parameters == 2 * 8 * 3 * sum(widths)
    assert alpha.multiply_adds - plain.multiply_adds == 2 * (
        8 * 3 * sum(widths) + 3 * 64
    )


def test_resolution_changes_multiply_adds_only():
    at32 = derived_network_cost(DARTS_V2)
    at64 = derived_network_cost(DARTS_V2, size=64)
    wide = derived_network_cost(DARTS_V2, size=(32, 64))
    assert at32.parameters == at64.parameters == wide.parameters
    head = 576 * 10
    assert at64.multiply_adds - head == 4 * (at32.multiply_adds - head)
    assert wide.multiply_adds - head == 2 * (at32.multiply_adds - head)


def test_gather_excite_ties_parameters_to_the_resolution():
    cell = [("none", 0, "GE_theta-plus"), ("none", 1)]
    plain = [("none", 0), ("none", 1)]
    options = {"init_channels": 16, "num_cells": 1, "size": 32}
    excited = derived_network_cost(Genotype(plain, [2], cell, [2]), **options)
    base = derived_network_cost(Genotype(plain, [2], plain, [2]), **options)
    # the only cell reduces: 32 channels at 16 x 16
    assert excited.parameters - base.parameters == 32 * 16 * 16 + 64 + 2 * 64
