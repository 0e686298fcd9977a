"""Random search: uniform genotypes of the same space, with shared weights if asked.

Without shared weights a uniform genotype is the result, and nothing is trained. With
them every pass takes a uniform genotype: the weights learn to serve all of them, and
the architecture phase keeps the genotype of the smallest validation loss it has seen.
The rule is ours; what matters is that no gradient of the architecture has a part in it.

References:
  Liu, Simonyan, Yang, "DARTS", ICLR 2019, table 1 (random search as baseline);
  Li, Talwalkar, "Random Search and Reproducibility for Neural Architecture Search",
  UAI 2019 (random search with weight sharing).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, PRNGKeyArray

from adarts_jax.architecture import ArchitectureParams
from adarts_jax.bilevel.gradients import Batch, first_order
from adarts_jax.bilevel.optimizers import Optimizers
from adarts_jax.bilevel.steps import (
    ARCHITECTURE,
    SearchState,
    pass_key,
    phase_values,
    update_weights,
)
from adarts_jax.methods.uniform import uniform_architecture


def begin_random_search(state: SearchState) -> SearchState:
    """Return the state with no genotype seen yet; its loss is in ``arch_opt_state``."""
    return dataclasses.replace(state, arch_opt_state=jnp.float32(jnp.inf))


def random_phase(
    state: SearchState,
    batch: Batch,
    phase: Int[Array, ""],
    *,
    network: nn.Module,
    optimizers: Optimizers,
    weight_learning_rate: Float[Array, ""] | float,
    architecture_learning_rate: Float[Array, ""] | float,
    seed: int,
) -> tuple[SearchState, Float[Array, " quantity"]]:
    """Judge a uniform genotype, or train the weights under one.

    Arguments and result are those of ``search_phase``.
    """
    del architecture_learning_rate
    candidate = draw_like(state.arch, pass_key(seed, state, phase))
    found = first_order(network, state.params, candidate, state.batch_stats, batch)

    def judge(state: SearchState) -> SearchState:
        is_better = found.loss < state.arch_opt_state
        arch = jax.tree.map(
            lambda new, old: jnp.where(is_better, new, old), candidate, state.arch
        )
        return dataclasses.replace(
            state,
            arch=arch,
            arch_opt_state=jnp.minimum(found.loss, state.arch_opt_state),
            batch_stats=found.batch_stats,
        )

    def train(state: SearchState) -> SearchState:
        return update_weights(state, found, optimizers, weight_learning_rate)

    state = jax.lax.cond(phase == ARCHITECTURE, judge, train, state)
    values = phase_values(found, found.params)
    # Nothing follows the architecture's gradient, so its norm is none.
    return state, values.at[2].multiply(phase != ARCHITECTURE)


def draw_like(arch: ArchitectureParams, key: PRNGKeyArray) -> ArchitectureParams:
    """Draw the logits of a uniform genotype, as many as ``arch`` has."""
    edges, primitives = arch.alpha_normal.shape
    return uniform_architecture(key, num_edges=edges, num_primitives=primitives)
