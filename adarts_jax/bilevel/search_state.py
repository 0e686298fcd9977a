"""All that a search changes, and its beginning."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import PRNGKeyArray, PyTree

from adarts_jax.bilevel.optimizers import Optimizers
from adarts_jax.nn.initial_weights import draw_together


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
      unrolling: what the phases of the second order hand on; None for the first.
      left: the last gradient of the architecture, where the clipping of the weights
        counts it; else None.
    """

    step: PyTree
    params: PyTree
    batch_stats: PyTree
    weight_opt_state: PyTree
    arch: PyTree
    arch_opt_state: PyTree
    unrolling: PyTree = None
    left: PyTree = None


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
    init = partial(network.init, train=False)
    variables = draw_together(init, key, arch, images)
    params = variables["params"]
    return SearchState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        weight_opt_state=optimizers.weight.init(params),
        arch=arch,
        arch_opt_state=optimizers.architecture.init(arch),
    )


def begin_joint_clipping(state: SearchState) -> SearchState:
    """Return a state whose weights are clipped as in Att-DARTS' published code.

    There the norm counts the gradients of the architecture too: that of the
    architecture step, never cleared, plus that of the weight step.
    """
    return dataclasses.replace(state, left=jax.tree.map(jnp.zeros_like, state.arch))
