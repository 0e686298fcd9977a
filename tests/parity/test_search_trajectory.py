"""Search steps of first order against the originals: every array of C1 to C5.

The passes run through the compiled program that the one-pass tests use; the steps
under test receive their results and do the rest.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import (
    ARCHITECTURE,
    Golden,
    assert_close,
    assert_family_close,
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

from adarts_jax.bilevel import steps
from adarts_jax.bilevel.search_state import SearchState

# In float32 a network of these meets a kink of a ReLU a rounding error away: from the
# fourth step on it is another trajectory. In float64 all of them agree to 1e-12.
FLOAT64 = {"C3_pc_first_order", "C4_darts_first_order", "C5_att_first_order"}
NAMES = [
    "C1_alpha_first_order",
    *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(FLOAT64)),
]
STEPS = range(1, 6)


class Record(NamedTuple):
    """One search step.

    Attributes:
      architecture: gradients of the architecture step.
      weight: gradients of the weight step.
      state: the state after both.
    """

    architecture: Any
    weight: Any
    state: SearchState


class Trajectory(NamedTuple):
    """All search steps, and the state after a stale optimizer step at their end."""

    records: list[Record]
    boundary: SearchState


@functools.cache
def trajectory(shared: Path, name: str) -> Trajectory:
    """Walk the five steps, then take alpha-ADARTS' step at the start of an epoch."""
    with jax.enable_x64(name in FLOAT64):
        return walk(shared, name)


def walk(shared: Path, name: str) -> Trajectory:
    golden = open_golden(shared, name)
    rates, network = golden.entry["hyperparameters"], network_of(golden, shared)
    optimizers = optimizers_of(golden)
    dtype = jnp.float64 if name in FLOAT64 else jnp.float32
    state = initial_state(golden, shared, optimizers, dtype)

    def differentiate(state: SearchState, split: str, index: int) -> Any:
        images = to_nhwc(golden[f"{split}_x"][index]).astype(dtype)
        batch = images, jnp.asarray(golden[f"{split}_y"][index])
        return gradients_of(
            network, state.params, state.arch, state.batch_stats, batch
        )[0]

    def compiled(step: Any, rate: float) -> Any:
        update = functools.partial(
            step, network=network, optimizers=optimizers, learning_rate=rate
        )
        return jax.jit(lambda state, gradients: update(state, gradients)[0])

    architecture_step = compiled(steps.architecture_step, rates["arch_lr"])
    weight_step = compiled(steps.weight_step, rates["lr"])
    records, weight = [], None
    with pytest.MonkeyPatch.context() as patch:
        # In the place of a batch the steps are given the gradients of that batch.
        patch.setattr(steps, "first_order", lambda *arguments: arguments[-1])
        for index in range(len(STEPS)):
            arch_gradients = differentiate(state, "valid", index)
            state = architecture_step(state, arch_gradients)
            weight = differentiate(state, "train", index)
            state = weight_step(state, weight)
            records.append(Record(arch_gradients, weight, state))
        return Trajectory(records, weight_step(state, weight))


def named_state(
    golden: Golden, shared: Path, state: SearchState
) -> dict[str, np.ndarray]:
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return named(golden, shared, variables)


def check_losses(golden: Golden, shared: Path) -> None:
    for step, record in zip(
        STEPS, trajectory(shared, golden.name).records, strict=True
    ):
        losses = jnp.stack([record.architecture.loss, record.weight.loss])
        for want in recorded(golden, f"loss/{step}"):
            assert_close(golden, "loss", losses, want, str(step))


def check_train_logits(golden: Golden, shared: Path) -> None:
    for step, record in zip(
        STEPS, trajectory(shared, golden.name).records, strict=True
    ):
        want = golden[f"train_logits/{step}"]
        assert_close(golden, "train_logits", record.weight.logits, want, str(step))


def check_gradient_norms(golden: Golden, shared: Path) -> None:
    for step, record in zip(
        STEPS, trajectory(shared, golden.name).records, strict=True
    ):
        both: Any = ()
        if counts_architecture(golden):  # which was not cleared
            left = record.architecture.arch
            both = jax.tree.map(jnp.add, left, record.weight.arch)
        norm = norm_of(record.weight.params, both)
        for want in recorded(golden, f"grad_norm/{step}"):
            assert_close(golden, "grad_norm", norm, want, str(step))


def check_architecture(golden: Golden, shared: Path) -> None:
    for step, record in zip(
        STEPS, trajectory(shared, golden.name).records, strict=True
    ):
        found = {"arch_grad": record.architecture.arch, "arch_after": record.state.arch}
        for family, arch in found.items():
            for name in ARCHITECTURE:
                stored = recorded(golden, f"{family}/{step}/{name}")
                ours = tensor_of(arch, name)
                assert bool(stored) == (ours is not None)
                for want in stored:
                    assert_close(golden, family, ours, want, name)


def check_states(golden: Golden, shared: Path) -> None:
    walked = trajectory(shared, golden.name)
    for step in (1, 5):
        state = walked.records[step - 1].state
        found = named_state(golden, shared, state)
        if counts_architecture(golden):
            found |= {name: tensor_of(state.arch, name) for name in ARCHITECTURE}
        assert_family_close(golden, f"step{step}", found, projected=f"step{step}proj")


def check_stale_step_at_an_epoch_boundary(golden: Golden, shared: Path) -> None:
    if not golden.keys("pack/boundary/"):
        return
    found = named_state(golden, shared, trajectory(shared, golden.name).boundary)
    assert_family_close(golden, "boundary", found, projected="boundaryproj")


CHECKS = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_losses,
        check_train_logits,
        check_gradient_norms,
        check_architecture,
        check_states,
        check_stale_step_at_an_epoch_boundary,
    )
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_search_steps_follow_the_original(shared, name, check):
    CHECKS[check](open_golden(shared, name), shared)


@pytest.mark.parametrize("name", NAMES)
def test_every_array_is_checked(shared, name):
    golden = open_golden(shared, name)
    for check in CHECKS.values():
        check(golden, shared)
    golden.assert_all_read()
