"""The two updates of the bilevel problem, and their order.

Pure functions on an explicit state. No schedules, no data, no host work here.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from adarts_jax.bilevel.gradients import Batch, Gradients, first_order
from adarts_jax.bilevel.optimizers import Optimizers, descend

Metrics = dict[str, Float[Array, ""]]


@struct.dataclass
class SearchState:
    """All that a search changes; arrays only, so that a checkpoint is the state.

    Attributes:
      step: search steps done, int32 scalar.
      params: network weights.
      batch_stats: running statistics of batch norm.
      weight_opt_state: state of the weights' optimizer.
      arch: architecture parameters.
      arch_opt_state: state of the architecture's optimizer.
    """

    step: PyTree
    params: PyTree
    batch_stats: PyTree
    weight_opt_state: PyTree
    arch: PyTree
    arch_opt_state: PyTree


def init_state(
    network: nn.Module,
    arch: PyTree,
    optimizers: Optimizers,
    *,
    image_shape: tuple[int, int, int],
    key: PRNGKeyArray,
) -> SearchState:
    """Initialise the weights (PyTorch's defaults) and both optimizers.

    Args:
      network: a search network.
      arch: its ``ArchitectureParams``.
      optimizers: see ``make_optimizers``.
      image_shape: height, width, channels of the images.
      key: random key of the weights.
    """
    images = jnp.zeros((2, *image_shape), jnp.float32)
    variables = network.init(key, arch, images, train=False)
    params = variables["params"]
    return SearchState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        weight_opt_state=optimizers.weight.init(params),
        arch=arch,
        arch_opt_state=optimizers.architecture.init(arch),
    )


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
    return _update_architecture(state, gradients, optimizers, learning_rate), gradients


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
    return _update_weights(state, gradients, optimizers, learning_rate), gradients


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

    Both updates need the same pass forward and backward, and compiling it is what
    costs; it is therefore compiled once, as the body of a loop that runs twice, or
    once while the architecture is frozen.

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
      The new state, and scalars ``<phase>/loss``, ``<phase>/accuracy``,
      ``<phase>/gradient_norm`` for both phases (NaN for the architecture while it is
      frozen) and ``attention/tied_edges`` of the weight step.
    """
    batches = jax.tree.map(
        lambda *pair: jnp.stack(pair), architecture_batch, weight_batch
    )

    def phase(index: Array, carry: tuple) -> tuple:
        state, records = carry
        batch = jax.tree.map(lambda x: x[index], batches)
        gradients = _differentiate(state, batch, network)
        state = lax.cond(
            index == 0,
            lambda s, g: _update_architecture(
                s, g, optimizers, architecture_learning_rate
            ),
            lambda s, g: _update_weights(s, g, optimizers, weight_learning_rate),
            state,
            gradients,
        )
        return state, records.at[index].set(_record(gradients, index))

    records = jnp.full((2, 4), jnp.nan, jnp.float32)
    first = jnp.where(update_architecture, 0, 1)
    state, records = lax.fori_loop(first, 2, phase, (state, records))
    names = ("loss", "accuracy", "gradient_norm")
    metrics = {f"architecture/{n}": records[0, i] for i, n in enumerate(names)}
    metrics |= {f"weight/{n}": records[1, i] for i, n in enumerate(names)}
    return state, {**metrics, "attention/tied_edges": records[1, 3]}


def _differentiate(state: SearchState, batch: Batch, network: nn.Module) -> Gradients:
    return first_order(network, state.params, state.arch, state.batch_stats, batch)


def _update_architecture(
    state: SearchState,
    gradients: Gradients,
    optimizers: Optimizers,
    learning_rate: Float[Array, ""] | float,
) -> SearchState:
    arch, opt_state = descend(
        optimizers.architecture,
        gradients.arch,
        state.arch_opt_state,
        state.arch,
        learning_rate,
    )
    return dataclasses.replace(
        state, arch=arch, arch_opt_state=opt_state, batch_stats=gradients.batch_stats
    )


def _update_weights(
    state: SearchState,
    gradients: Gradients,
    optimizers: Optimizers,
    learning_rate: Float[Array, ""] | float,
) -> SearchState:
    params, opt_state = descend(
        optimizers.weight,
        gradients.params,
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


def _record(gradients: Gradients, index: Array) -> Float[Array, " quantity"]:
    norm = jnp.where(
        index == 0,
        optax.global_norm(gradients.arch),
        optax.global_norm(gradients.params),
    )
    return jnp.stack(
        [gradients.loss, gradients.accuracy, norm, gradients.tied_edges]
    ).astype(jnp.float32)
