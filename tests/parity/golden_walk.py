"""What search trajectories of first and second order share: start, names, norms."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from golden import Golden, architecture, initial_variables, make_network, open_golden
from jaxtyping import PyTree

import adarts_jax as aj
from adarts_jax.bilevel.optimizers import Optimizers, make_optimizers
from adarts_jax.bilevel.search_state import SearchState, begin_joint_clipping
from adarts_jax.networks.search_network import SearchNetwork
from benchmarks.torch_reference import recipe_weights

# Trajectory -> fixture of the same network.
INITIAL = {
    "C1_alpha_first_order": "B1_alpha_small",
    "C3_pc_first_order": "B3_pc_small",
    "C4_darts_first_order": "B4_darts_small",
    "C4_darts_second_order": "B4_darts_small",
    "C5_att_first_order": "B5_att_after_every_3cells",
    "C5_att_second_order": "B5_att_after_every_3cells",
}


def counts_architecture(golden: Golden) -> bool:
    """Whether the original counts the architecture among its parameters."""
    return golden.name.startswith("C5_att")


def network_of(golden: Golden, shared: Path) -> SearchNetwork:
    """Build the search network of a trajectory."""
    return make_network(open_golden(shared, INITIAL[golden.name]))


def optimizers_of(golden: Golden) -> Optimizers:
    """Build the optimizers of a trajectory."""
    rates = golden.entry["hyperparameters"]
    return make_optimizers(
        momentum=rates["momentum"],
        weight_decay=rates["weight_decay"],
        gradient_clip=rates["grad_clip"],
        architecture_betas=tuple(rates["arch_betas"]),
        architecture_weight_decay=rates["arch_weight_decay"],
        virtual_momentum=not counts_architecture(golden),
    )


def initial_state(
    golden: Golden, shared: Path, optimizers: Optimizers, dtype: Any
) -> SearchState:
    """Return the state before the first step."""
    arch: Any
    variables, arch = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, dtype),
        (_initial_weights(golden, shared), architecture(golden, "arch0")),
    )
    state = SearchState(
        step=jnp.zeros((), jnp.int32),
        weight_opt_state=optimizers.weight.init(variables["params"]),
        arch=arch,
        arch_opt_state=optimizers.architecture.init(arch),
        **variables,
    )
    return begin_joint_clipping(state) if counts_architecture(golden) else state


def _initial_weights(golden: Golden, shared: Path) -> PyTree:
    initial = open_golden(shared, INITIAL[golden.name])
    if golden.entry["init_state"] != "recipe":
        assert golden.entry["init_state"] == f"{initial.name}.pt"
        return initial_variables(initial)
    state = recipe_weights.recipe_state(golden.entry["init_seed"], initial.spec)
    return aj.torch_weights.search_variables(state, make_network(initial))


def named(golden: Golden, shared: Path, variables: PyTree) -> dict[str, np.ndarray]:
    """Return our variables under the names of the original."""
    network = network_of(golden, shared)
    return aj.torch_weights.search_state_dict(variables, network)


def recorded(golden: Golden, key: str) -> list[np.ndarray]:
    """Return what the original had, in float32 and where stored in float64."""
    return [golden[k] for k in (key, f"f64/{key}") if k in golden]


def norm_of(*trees: PyTree) -> Any:
    """Return the Euclidean norm of all numbers."""
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(trees)]
    return np.linalg.norm(np.concatenate(leaves).astype(np.float64))
