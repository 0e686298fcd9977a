"""Search steps of second order against the originals: every array of C4 and C5.

As in ``test_search_trajectory``, the passes run through one compiled program; the
phases under test receive their results and do the rest. In float64, because a finite
difference of the Att-DARTS network is mostly noise in float32.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from golden import (
    ARCHITECTURE,
    Golden,
    assert_close,
    assert_family_close,
    assert_projections_close,
    open_golden,
    tensor_of,
    to_nhwc,
)
from golden_pass import gradients_of
from golden_walk import (
    counts_architecture,
    initial_state,
    named,
    network_of,
    norm_of,
    optimizers_of,
    recorded,
)

from adarts_jax.bilevel import steps, unrolled
from adarts_jax.bilevel.search_state import SearchState

pytestmark = pytest.mark.slow

NAMES = ["C4_darts_second_order", "C5_att_second_order"]
PHASES = unrolled.PHASES["finite_difference"]


class Record(NamedTuple):
    """One search step.

    Attributes:
      passes: gradients of every phase.
      states: the state after every phase.
    """

    passes: dict[int, Any]
    states: dict[int, SearchState]


@functools.cache
def trajectory(shared: Path, name: str) -> list[Record]:
    with jax.enable_x64(True):
        return walk(shared, name)


def walk(shared: Path, name: str) -> list[Record]:
    golden = open_golden(shared, name)
    rates, network = golden.entry["hyperparameters"], network_of(golden, shared)
    optimizers = optimizers_of(golden)
    state = initial_state(golden, shared, optimizers, jnp.float64)
    state = unrolled.begin_unrolling(state)
    update = jax.jit(
        functools.partial(
            unrolled.unrolled_phase,
            network=network,
            optimizers=optimizers,
            weight_learning_rate=rates["lr"],
            architecture_learning_rate=rates["arch_lr"],
            moves_architecture=counts_architecture(golden),
        )
    )
    records = []
    with pytest.MonkeyPatch.context() as patch:
        # In the place of a batch the phases are given the gradients of that batch.
        patch.setattr(unrolled, "first_order", lambda *found, key: found[-1])
        for index in range(golden.entry["steps"]):
            record = Record({}, {})
            for phase in PHASES:
                split = "valid" if phase == steps.ARCHITECTURE else "train"
                batch = (
                    to_nhwc(golden[f"{split}_x"][index]).astype(jnp.float64),
                    jnp.asarray(golden[f"{split}_y"][index]),
                )
                point: Any = (state.params, state.arch)
                if phase not in (unrolled.VIRTUAL, steps.WEIGHT):
                    point = state.unrolling.point
                found, _ = gradients_of(network, *point, state.batch_stats, batch)
                state, _ = update(state, found, jnp.int32(phase))
                record.passes[phase], record.states[phase] = found, state
            records.append(record)
    return records


def architecture_tensors(golden: Golden, arch: Any) -> dict[str, Any]:
    """Return the tensors that lie in the state dict of Att-DARTS."""
    if not counts_architecture(golden):
        return {}
    return {name: tensor_of(arch, name) for name in ARCHITECTURE}


def check_losses(golden: Golden, shared: Path) -> None:
    for step, record in enumerate(trajectory(shared, golden.name), start=1):
        losses = jnp.stack([record.passes[phase].loss for phase in PHASES])
        for want in recorded(golden, f"loss/{step}"):
            assert_close(golden, "loss", losses, want, str(step))


def check_weight_step(golden: Golden, shared: Path) -> None:
    for step, record in enumerate(trajectory(shared, golden.name), start=1):
        found = record.passes[steps.WEIGHT]
        want = golden[f"train_logits/{step}"]
        assert_close(golden, "train_logits", found.logits, want, str(step))
        both: Any = ()
        if counts_architecture(golden):  # which the architecture step did not clear
            left = record.states[unrolled.MINUS].left
            both = jax.tree.map(jnp.add, left, found.arch)
        norm = norm_of(found.params, both)
        for want in recorded(golden, f"grad_norm/{step}"):
            assert_close(golden, "grad_norm", norm, want, str(step))


def check_architecture(golden: Golden, shared: Path) -> None:
    for step, record in enumerate(trajectory(shared, golden.name), start=1):
        state = record.states[unrolled.MINUS]
        for family, arch in (
            ("arch_grad", state.unrolling.direct),
            ("arch_after", state.arch),
        ):
            for name in ARCHITECTURE:
                for want in recorded(golden, f"{family}/{step}/{name}"):
                    assert_close(golden, family, tensor_of(arch, name), want, name)


def check_parts_of_the_first_gradient(golden: Golden, shared: Path) -> None:
    record = trajectory(shared, golden.name)[0]
    direct = record.passes[steps.ARCHITECTURE]
    whole = record.states[unrolled.MINUS].unrolling.direct
    rate = golden.entry["hyperparameters"]["lr"]
    implicit = jax.tree.map(lambda d, g: (d - g) / rate, direct.arch, whole)
    for family, arch in (("direct_grad", direct.arch), ("implicit_grad", implicit)):
        for name in ARCHITECTURE:
            for want in recorded(golden, f"unrolled/{family}/{name}"):
                assert_close(golden, "unrolled", tensor_of(arch, name), want, name)
    moved = direct.arch if counts_architecture(golden) else ()
    norm = norm_of(direct.params, moved)
    for want in recorded(golden, "unrolled/vector_norm"):
        assert_close(golden, "unrolled", norm, want)


def check_virtual_weights(golden: Golden, shared: Path) -> None:
    point = trajectory(shared, golden.name)[0].states[unrolled.VIRTUAL].unrolling.point
    stored = golden.family("gproj")
    found = named(golden, shared, {"params": point[0]})
    found |= architecture_tensors(golden, point[1])
    assert found.keys() == stored.keys()
    for key, want in stored.items():
        assert_projections_close(golden, "unrolled_model", found[key], want, key)


def check_states(golden: Golden, shared: Path) -> None:
    for step in (1, golden.entry["steps"]):
        state = trajectory(shared, golden.name)[step - 1].states[steps.WEIGHT]
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        found = named(golden, shared, variables)
        found |= architecture_tensors(golden, state.arch)
        assert_family_close(golden, f"step{step}", found, projected=f"step{step}proj")


CHECKS = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_losses,
        check_weight_step,
        check_architecture,
        check_parts_of_the_first_gradient,
        check_virtual_weights,
        check_states,
    )
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_steps_of_second_order_follow_the_original(shared, name, check):
    CHECKS[check](open_golden(shared, name), shared)


@pytest.mark.parametrize("name", NAMES)
def test_every_array_is_checked(shared, name):
    golden = open_golden(shared, name)
    for check in CHECKS.values():
        check(golden, shared)
    golden.assert_all_read()
