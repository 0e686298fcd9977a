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
import numpy as np
import pytest
from golden import (
    ARCHITECTURE,
    Golden,
    architecture,
    assert_close,
    assert_family_close,
    assert_projections_close,
    initial_variables,
    make_network,
    open_golden,
    tensor_of,
    to_nhwc,
)
from golden_pass import gradients_of

import adarts_jax as aj
from adarts_jax.bilevel import steps, unrolled
from adarts_jax.bilevel.optimizers import make_optimizers
from adarts_jax.bilevel.steps import SearchState
from benchmarks.torch_reference import recipe_weights

pytestmark = pytest.mark.slow

# Trajectory -> fixture of the same network; Att-DARTS moves the architecture too.
INITIAL = {
    "C4_darts_second_order": "B4_darts_small",
    "C5_att_second_order": "B5_att_after_every_3cells",
}
MOVES = {"C5_att_second_order"}
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


def initial_state(shared: Path, golden: Golden) -> Any:
    """Return the weights before the first step."""
    initial = open_golden(shared, INITIAL[golden.name])
    if golden.entry["init_state"] != "recipe":
        assert golden.entry["init_state"] == f"{initial.name}.pt"
        return initial_variables(initial)
    state = recipe_weights.recipe_state(golden.entry["init_seed"], initial.spec)
    return aj.torch_weights.search_variables(state, make_network(initial))


def walk(shared: Path, name: str) -> list[Record]:
    golden, initial = open_golden(shared, name), open_golden(shared, INITIAL[name])
    rates, network = golden.entry["hyperparameters"], make_network(initial)
    optimizers = make_optimizers(
        momentum=rates["momentum"],
        weight_decay=rates["weight_decay"],
        gradient_clip=rates["grad_clip"],
        architecture_betas=tuple(rates["arch_betas"]),
        architecture_weight_decay=rates["arch_weight_decay"],
        virtual_momentum=name not in MOVES,
    )
    variables, arch = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float64),
        (initial_state(shared, golden), architecture(golden, "arch0")),
    )
    state = SearchState(
        step=jnp.zeros((), jnp.int32),
        weight_opt_state=optimizers.weight.init(variables["params"]),
        arch=arch,
        arch_opt_state=optimizers.architecture.init(arch),
        **variables,
    )
    state = unrolled.begin_unrolling(state)
    update = jax.jit(
        functools.partial(
            unrolled.unrolled_phase,
            network=network,
            optimizers=optimizers,
            weight_learning_rate=rates["lr"],
            architecture_learning_rate=rates["arch_lr"],
            moves_architecture=name in MOVES,
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


def named(golden: Golden, shared: Path, variables: Any) -> dict[str, np.ndarray]:
    network = make_network(open_golden(shared, INITIAL[golden.name]))
    return aj.torch_weights.search_state_dict(variables, network)


def norm_of(tree: Any) -> Any:
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    return np.linalg.norm(np.concatenate(leaves).astype(np.float64))


def recorded(golden: Golden, key: str) -> list[np.ndarray]:
    """Return what the original had, in float32 and where stored in float64."""
    return [golden[k] for k in (key, f"f64/{key}") if k in golden]


def architecture_tensors(golden: Golden, arch: Any) -> dict[str, Any]:
    """Return the tensors that lie in the state dict of Att-DARTS."""
    if golden.name not in MOVES:
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
        norm = norm_of(found.params)
        if golden.name in MOVES:  # those of the architecture step were not cleared
            left = record.states[unrolled.MINUS].unrolling.direct
            both = jax.tree.map(jnp.add, left, found.arch)
            norm = np.hypot(norm, norm_of(both))
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
    norm = norm_of(direct.params)
    if golden.name in MOVES:
        norm = np.hypot(norm, norm_of(direct.arch))
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
@pytest.mark.parametrize("name", INITIAL)
def test_steps_of_second_order_follow_the_original(shared, name, check):
    CHECKS[check](open_golden(shared, name), shared)


@pytest.mark.parametrize("name", INITIAL)
def test_every_array_is_checked(shared, name):
    golden = open_golden(shared, name)
    for check in CHECKS.values():
        check(golden, shared)
    golden.assert_all_read()
