"""The two updates of the bilevel problem, and their order.

Pure functions on an explicit state. No schedules, no data, no host work here.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from adarts_jax.architecture import ArchitectureParams
from adarts_jax.bilevel.gradients import Batch, Gradients, first_order
from adarts_jax.bilevel.optimizers import (
    Optimizers,
    clip_together,
    descend,
    global_norm,
)
from adarts_jax.bilevel.search_state import SearchState as SearchState
from adarts_jax.bilevel.search_state import init_state as init_state
from adarts_jax.nn.depthwise import weight_gradients_if

Metrics = dict[str, Float[Array, ""]]


def architecture_step(
    state: SearchState,
    batch: Batch,
    *,
    network: nn.Module,
    optimizers: Optimizers,
    learning_rate: Float[Array, ""] | float,
) -> tuple[SearchState, Gradients]:
    """Update the architecture on a batch of the architecture split.

    The network weights stay as they are; the running statistics of batch norm take
    the batch in, as in the originals.
    """
    gradients = _differentiate(state, batch, network)
    state = dataclasses.replace(state, batch_stats=gradients.batch_stats)
    return update_architecture(
        state, gradients.arch, optimizers, learning_rate
    ), gradients


def weight_step(
    state: SearchState,
    batch: Batch,
    *,
    network: nn.Module,
    optimizers: Optimizers,
    learning_rate: Float[Array, ""] | float,
) -> tuple[SearchState, Gradients]:
    """Update the network weights on a batch of the weight split, and count the step."""
    gradients = _differentiate(state, batch, network)
    return update_weights(state, gradients, optimizers, learning_rate), gradients


ARCHITECTURE, WEIGHT = 0, 1  # the phases of a step, in this order
_PASSES = 4  # purpose of a key, next to those of the engine
QUANTITIES = ("loss", "accuracy", "gradient_norm", "tied_edges")


def search_phase(
    state: SearchState,
    batch: Batch,
    phase: Int[Array, ""],
    *,
    network: nn.Module,
    optimizers: Optimizers,
    weight_learning_rate: Float[Array, ""] | float,
    architecture_learning_rate: Float[Array, ""] | float,
    seed: int | None = None,
    repeat_every: int | None = None,
) -> tuple[SearchState, Float[Array, " quantity"]]:
    """Architecture step or weight step, chosen by a traced number.

    Both need the same pass forward and backward, and compiling it is what costs: so it
    is compiled once, for both phases and for warm-up.

    Args:
      state: the state before.
      batch: images and labels of the split that belongs to the phase.
      phase: ``ARCHITECTURE`` or ``WEIGHT``.
      network: the search network.
      optimizers: one per level.
      weight_learning_rate: may be traced.
      architecture_learning_rate: may be traced.
      seed: of networks that draw; None for the others.
      repeat_every: descend twice along the gradient of every such step, the last of an
        epoch (alpha-ADARTS' published code steps once more before the next epoch);
        None for never.

    Returns:
      The new state and the ``QUANTITIES`` of the phase: mean cross entropy in nats,
      accuracy in [0, 1], norm of the gradient used (before clipping), edges whose
      attention is the same for all channels.
    """
    key = None if seed is None else pass_key(seed, state, phase)
    with weight_gradients_if(phase == WEIGHT):
        found = _differentiate(state, batch, network, key)

    def of_architecture(state: SearchState, found: Gradients) -> tuple:
        state = dataclasses.replace(state, batch_stats=found.batch_stats)
        rate = architecture_learning_rate
        state = update_architecture(state, found.arch, optimizers, rate)
        return state, phase_values(found, found.arch)

    def of_weights(state: SearchState, found: Gradients) -> tuple:
        rate = weight_learning_rate
        state = update_weights(state, found, optimizers, rate)
        if repeat_every is not None:
            again = update_weights(state, found, optimizers, rate)
            again = dataclasses.replace(again, step=state.step)
            is_last = state.step % repeat_every == 0
            state = jax.tree.map(partial(jnp.where, is_last), again, state)
        return state, phase_values(found, found.params)

    # Both, and a choice: the branches of a `cond` would copy every weight.
    return jax.tree.map(
        partial(jnp.where, phase == ARCHITECTURE),
        of_architecture(state, found),
        of_weights(state, found),
    )


def pass_key(seed: int, state: SearchState, phase: Int[Array, ""]) -> PRNGKeyArray:
    """Return the randomness of a pass: one for each split of a step."""
    key = jax.random.fold_in(jax.random.key(seed), _PASSES)
    is_architecture = (phase == ARCHITECTURE).astype(jnp.int32)
    return jax.random.fold_in(jax.random.fold_in(key, state.step), is_architecture)


def phase_values(found: Gradients, used: PyTree) -> Float[Array, " quantity"]:
    """Return the ``QUANTITIES`` of a phase that uses one of the gradients."""
    norm = global_norm(used)
    values = [found.loss, found.accuracy, norm, found.tied_edges]
    return jnp.stack(values).astype(jnp.float32)


def search_step(
    state: SearchState,
    weight_batch: Batch,
    architecture_batch: Batch,
    *,
    network: nn.Module,
    optimizers: Optimizers,
    weight_learning_rate: Float[Array, ""] | float,
    architecture_learning_rate: Float[Array, ""] | float,
    update_architecture: Bool[Array, ""] | bool,
) -> tuple[SearchState, Metrics]:
    """One search step: the architecture first, then the weights under the new one.

    Args:
      state: the state before the step.
      weight_batch: images and labels of the weight split.
      architecture_batch: the same of the architecture split, as many images.
      network: the search network.
      optimizers: one per level.
      weight_learning_rate: of this step; may be traced.
      architecture_learning_rate: likewise.
      update_architecture: False during warm-up; may be traced.

    Returns:
      The new state, and scalars ``architecture/<quantity>`` and ``weight/<quantity>``
      for all ``QUANTITIES``; NaN for the architecture while it is frozen.
    """
    batches = jax.tree.map(lambda *x: jnp.stack(x), architecture_batch, weight_batch)

    def phase(number: Array, carry: tuple) -> tuple:
        state, records = carry
        state, values = search_phase(
            state,
            jax.tree.map(lambda x: x[number], batches),
            number,
            network=network,
            optimizers=optimizers,
            weight_learning_rate=weight_learning_rate,
            architecture_learning_rate=architecture_learning_rate,
        )
        return state, records.at[number].set(values)

    records = jnp.full((2, len(QUANTITIES)), jnp.nan, jnp.float32)
    first = jnp.where(update_architecture, ARCHITECTURE, WEIGHT)
    state, records = lax.fori_loop(first, 2, phase, (state, records))
    return state, {
        f"{name}/{quantity}": records[row, column]
        for row, name in enumerate(("architecture", "weight"))
        for column, quantity in enumerate(QUANTITIES)
    }


def _differentiate(
    state: SearchState,
    batch: Batch,
    network: nn.Module,
    key: PRNGKeyArray | None = None,
) -> Gradients:
    point = (state.params, state.arch, state.batch_stats)
    return first_order(network, *point, batch, **({} if key is None else {"key": key}))


def update_architecture(
    state: SearchState,
    gradient: ArchitectureParams,
    optimizers: Optimizers,
    learning_rate: Float[Array, ""] | float,
) -> SearchState:
    """Descend along a gradient of the architecture."""
    arch, opt_state = descend(
        optimizers.architecture,
        gradient,
        state.arch_opt_state,
        state.arch,
        learning_rate,
    )
    left = None if state.left is None else gradient
    return dataclasses.replace(state, arch=arch, arch_opt_state=opt_state, left=left)


def update_weights(
    state: SearchState,
    gradients: Gradients,
    optimizers: Optimizers,
    learning_rate: Float[Array, ""] | float,
) -> SearchState:
    """Descend along a gradient of the weights, and count the step."""
    gradient = gradients.params
    if state.left is not None:
        both = jax.tree.map(jnp.add, state.left, gradients.arch)
        gradient = clip_together(gradient, both, optimizers.gradient_clip)
    params, opt_state = descend(
        optimizers.weight,
        gradient,
        state.weight_opt_state,
        state.params,
        learning_rate,
    )
    return dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        weight_opt_state=opt_state,
        batch_stats=gradients.batch_stats,
    )
