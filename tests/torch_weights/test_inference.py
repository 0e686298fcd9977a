"""What a state dict tells about its network."""

import gzip
import json

import numpy as np
import pytest

import adarts_jax as aj
from adarts_jax.engine.conversion import choose_genotype
from adarts_jax.networks.derived_network import DerivedNetwork, variable_shapes
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.published import PUBLISHED
from adarts_jax.torch_weights.inference import (
    NetworkSize,
    fitting_genotypes,
    infer_size,
    revealed_operations,
)
from adarts_jax.torch_weights.layouts import StateDictMismatchError

CELL = [("sep_conv_3x3", 0), ("skip_connect", 1)]


def state_dict_of(network: DerivedNetwork, channels=3):
    """Zeros of the right names and shapes; nothing is computed."""
    side = 32 if network.stem == "cifar" else 224
    shapes = variable_shapes(network, (side, side, channels))

    def zeros(tree):
        if isinstance(tree, dict):
            return {name: zeros(child) for name, child in tree.items()}
        return np.zeros(tree.shape, np.float32)

    return aj.torch_weights.derived_state_dict(zeros(shapes), network)


@pytest.fixture(scope="module")
def golden_states(shared):
    """Zeros of the shapes of every derived fixture, by name."""
    folder = shared / "golden"
    packed = (folder / "state_dict_specs.json.gz").read_bytes()
    specs = json.loads(gzip.decompress(packed))
    index = json.loads((folder / "index.json").read_text("utf-8"))
    return {
        entry["name"]: (
            entry,
            {key: np.empty(shape, bool) for key, shape in specs[entry["name"]].items()},
        )
        for entry in index
        if entry["name"] in specs and entry["name"][:2] in ("A1", "A3", "A4", "A5")
    }


def test_size_and_genotype_of_every_fixture(golden_states):
    assert len(golden_states) > 10
    for name, (entry, state) in golden_states.items():
        size, wanted = infer_size(state), entry["ctor"]
        assert (size.init_channels, size.num_cells, size.num_classes) == (
            *(wanted["C"], wanted["layers"]),
            wanted["num_classes"],
        ), name
        assert size.auxiliary == wanted["auxiliary"], name
        assert size.stem == ("imagenet" if name.startswith("A4") else "cifar"), name
        if name.startswith("A5"):
            continue  # its genotype has attentions, in a spelling of its own
        genotype = Genotype(**entry["genotype"])
        fitting = fitting_genotypes(state, size, PUBLISHED)
        assert fitting == [n for n, g in PUBLISHED.items() if g == genotype], name


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("auxiliary", [True, False])
def test_what_is_exported_is_inferred(stem, auxiliary):
    genotype = Genotype(CELL, [2], CELL, [2])
    network = DerivedNetwork(genotype, 4, 3, 7, stem, auxiliary)
    state = state_dict_of(network, channels=2)
    assert infer_size(state) == NetworkSize(stem, 4, 3, 7, auxiliary, 2)
    assert fitting_genotypes(state, infer_size(state), {"it": genotype}) == ["it"]
    prefixed = {f"module.{key}": value for key, value in state.items()}
    assert infer_size(prefixed) == infer_size(state)


@pytest.mark.parametrize(
    ("normal", "concat"),
    [
        ([("sep_conv_5x5", 0), ("skip_connect", 1)], [2]),
        ([("dil_conv_3x3", 0), ("skip_connect", 1)], [2]),
        ([("skip_connect", 0), ("sep_conv_3x3", 1)], [2]),
        ([*CELL, ("max_pool_3x3", 0), ("skip_connect", 1)], [2, 3]),
        ([*CELL, ("sep_conv_3x3", 0), ("skip_connect", 1)], [2]),
    ],
    ids=["window", "kind", "place", "width", "nodes"],
)
def test_other_operations_and_widths_do_not_fit(normal, concat):
    state = state_dict_of(DerivedNetwork(Genotype(CELL, [2], CELL, [2]), 4, 3, 7))
    others = {"other": Genotype(normal, concat, CELL, [2])}
    assert fitting_genotypes(state, infer_size(state), others) == []


def test_attentions_with_kernels_of_their_own_fit():
    attended = [("sep_conv_3x3", 0, "GE_theta-plus"), ("skip_connect", 1, "Identity")]
    genotype = Genotype(attended, [2], CELL, [2])
    state = state_dict_of(DerivedNetwork(genotype, 16, 3, 7))
    assert fitting_genotypes(state, infer_size(state), {"it": genotype}) == ["it"]
    wider = [("sep_conv_5x5", *attended[0][1:]), attended[1]]
    others = {"other": Genotype(wider, [2], CELL, [2])}
    assert fitting_genotypes(state, infer_size(state), others) == []


def test_operations_without_weights_cannot_be_told_apart():
    state = state_dict_of(DerivedNetwork(Genotype(CELL, [2], CELL, [2]), 4, 3, 7))
    pool = [("sep_conv_3x3", 1), ("max_pool_3x3", 1)]
    known = {"a": Genotype(CELL, [2], CELL, [2]), "b": Genotype(pool, [2], CELL, [2])}
    assert fitting_genotypes(state, infer_size(state), known) == ["a", "b"]


def test_several_candidates_are_listed():
    # Two cells, both of them reduction cells: DARTS V1 and V2 have the same weights.
    state = state_dict_of(DerivedNetwork(PUBLISHED["darts_v1"], 4, 2, 7))
    with pytest.raises(aj.UserError, match="darts_v1, darts_v2 fit equally well"):
        choose_genotype(state)


def test_what_fits_nothing_is_described():
    state = state_dict_of(DerivedNetwork(Genotype(CELL, [2], CELL, [2]), 4, 3, 7))
    assert revealed_operations(state, 3) == (
        "normal cell: 0 sep_conv_3x3; reduction cell: 0 sep_conv_3x3, 1 skip_connect"
    )
    assert "normal cell: none;" in revealed_operations(state, 1)
    with pytest.raises(aj.UserError, match=r"no published genotype fits.*sep_conv_3x3"):
        choose_genotype(state)


def ones(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"cells.0._ops.0._ops.1.0.weight": ones(1)}, "a search network"),
        ({"alphas_normal": ones(14, 8), "stem.0.weight": ones(1)}, "a search network"),
        ({"encoder.weight": ones(5, 4), "rnns.0._W0": ones(8, 8)}, "recurrent"),
        ({"layer1.0.conv1.weight": ones(4, 4, 3, 3)}, "no stem or no classifier"),
        (
            {"stem.0.weight": ones(4, 3, 3, 3), "classifier.weight": ones(2, 4)},
            "4 channels, but the CIFAR stem",
        ),
        (
            {"stem.0.weight": ones(6), "classifier.weight": ones(2, 4)},
            "expected 4 axes",
        ),
        (
            {"stem.0.weight": ones(6, 3, 3, 3), "classifier.weight": ones(2, 4)},
            "has no cells",
        ),
        (
            {
                "stem.0.weight": ones(6, 3, 3, 3),
                "classifier.weight": ones(2, 4),
                "cells.99999999999.x": ones(1),
            },
            "has no cells",
        ),
    ],
)
def test_other_state_dicts_are_named(state, message):
    with pytest.raises(aj.UserError, match=message) as caught:
        infer_size(state)
    assert "\n" not in str(caught.value)


def test_the_whole_table_is_in_the_error():
    network = DerivedNetwork(Genotype(CELL, [2], CELL, [2]), 4, 3, 7)
    state = state_dict_of(network)
    first = "cells.0._ops.0.op.1.weight"
    state["extra"] = ones(2)
    state["classifier.bias"] = ones(8)
    del state[first]
    with pytest.raises(StateDictMismatchError) as caught:
        aj.torch_weights.derived_variables(state, network)
    assert caught.value.table == (
        ("missing", first, "", "(4, 1, 3, 3)"),
        ("unexpected", "extra", "(2,)", ""),
        ("of another shape", "classifier.bias", "(8,)", "(7,)"),
    )
