"""One pass of the search network against the originals: every array of B1 to B6."""

from typing import Any

import numpy as np
import pytest
from golden import (
    ARCHITECTURE,
    Golden,
    assert_close,
    assert_family_close,
    initial_variables,
    named,
    open_golden,
    tensor_of,
    to_nhwc,
)
from golden_pass import (
    edge_alone,
    eval_pass,
    selected_channels,
    tied_edges,
    train_pass,
)

from adarts_jax.edges.wave import cell_waves

FIXTURES = [
    "B1_alpha_small",
    "B1_alpha_upstream_init_ties",
    "B2_alpha16_small",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "B1_alpha_upstream_init_ties_torchcpu",
            "B1_alpha_full",
            "B2_alpha16_full",
            "B2_alpha_snapshot_c10_full",
            "B3_pc_small",
            "B4_darts_small",
            "B6_adarts_small",
            "B3_pc_imagenet_small",
            "B3_pc_full",
            "B4_darts_full",
            "B6_adarts_full",
            "B5_att_after_every_1cell",
            "B5_att_after_every_3cells",
            "B5_att_after_every_full",
            "B5_att_no_attention_3cells",
        )
    ),
]


def check_eval_logits(golden: Golden) -> None:
    for prefix in ("", "f64/"):
        for key in golden.keys(f"{prefix}eval/"):
            assert_close(golden, "eval", eval_pass(golden).logits, golden[key], key)


def check_train_logits_and_loss(golden: Golden) -> None:
    gradients = train_pass(golden).gradients
    for prefix in ("", "f64/"):
        for name in ("logits", "loss"):
            want = golden[f"{prefix}train/{name}"]
            assert_close(golden, "train", getattr(gradients, name), want, name)


def check_architecture_gradients(golden: Golden) -> None:
    gradients = train_pass(golden).gradients.arch
    for prefix in ("", "f64/"):
        for key in golden.keys(f"{prefix}arch_grad/"):
            name = key.rpartition("/")[2]
            ours = tensor_of(gradients, name)
            assert_close(golden, "arch_grad", ours, golden[key], name)
    stored = {key.removeprefix("arch/") for key in golden.keys("arch/")}
    found = {name for name in ARCHITECTURE if tensor_of(gradients, name) is not None}
    assert found == stored


def check_weight_gradients(golden: Golden) -> None:
    done = train_pass(golden)
    found = named(golden, {"params": done.gradients.params})
    assert_family_close(golden, "grad", found, projected="gproj")


def check_batch_statistics(golden: Golden) -> None:
    done = train_pass(golden)
    found = named(golden, {"batch_stats": done.gradients.batch_stats})
    if "twice" in golden.entry["what"]:
        found = updated_again(found, golden)
    assert_family_close(golden, "after", found, projected="afterproj")


def updated_again(found: dict[str, Any], golden: Golden) -> dict[str, Any]:
    """Statistics after a second, equal update: this original runs every edge twice."""
    before = named(golden, initial_variables(golden))
    # after = 0.9 before + 0.1 batch, and so once more
    return {
        key: 1.9 * after - 0.9 * before[key] if "._ops." in key else after
        for key, after in found.items()
    }


def check_selected_channels(golden: Golden) -> None:
    for key in golden.keys("select/"):
        _, mode, cell = key.split("/")
        if mode in ("train", "eval"):
            done = train_pass(golden) if mode == "train" else eval_pass(golden)
            ours = selected_channels(done.intermediates, int(cell.removeprefix("cell")))
            np.testing.assert_array_equal(ours, golden[key], err_msg=key)


def check_tied_edges(golden: Golden) -> None:
    done, total = train_pass(golden), 0
    if golden.entry["selection"] is None:
        assert not done.gradients.tied_edges
        return
    for cell in range(done.network.num_cells):
        tied = golden[f"select/train_all_tied/cell{cell}"]
        want = [int(tied[list(wave.edges)].sum()) for wave in cell_waves()]
        assert tied_edges(done.intermediates, cell) == want
        total += sum(want)
    assert done.gradients.tied_edges == total
    assert total == golden.entry["selection"]["tied_edges_train"]


def check_edges_alone(golden: Golden) -> None:
    for key in golden.keys("edge/"):
        _, place, name = key.split("/")
        cell, edge = (int(part) for part in place.split("."))
        ours, want = edge_alone(train_pass(golden), cell, edge), golden[key]
        match name:
            case "in":
                got, want = ours.state, to_nhwc(want)
            case "out":
                got, want = ours.output, to_nhwc(want)
            case "attention":
                got, want = ours.attention, want[:, :, 0, 0]
                assert got is not None
            case "weights_all":
                got = ours.op_weights
            case "weights":
                got = ours.op_weights[edge]
            case _:
                raise AssertionError(f"nothing of ours is called {key}")
        assert_close(golden, "edge", got, want, key)


CHECKS = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_eval_logits,
        check_train_logits_and_loss,
        check_architecture_gradients,
        check_weight_gradients,
        check_batch_statistics,
        check_selected_channels,
        check_tied_edges,
        check_edges_alone,
    )
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", FIXTURES)
def test_search_network_matches_the_original(shared, name, check):
    CHECKS[check](open_golden(shared, name))


@pytest.mark.parametrize("name", FIXTURES)
def test_every_array_is_checked(shared, name):
    golden = open_golden(shared, name)
    for check in CHECKS.values():
        check(golden)
    golden.assert_all_read()
