"""The architecture step of second order: through one virtual step of the weights.

``a <- a - xi (grad_a L_val(w', a) - eta grad2_aw L_train(w, a) v)`` with
``w' = w - eta (mu buffer + grad_w L_train(w, a) + lambda w)`` and
``v = grad_w' L_val(w', a)``. Every phase is one pass forward and backward at another
point, so that all of them, and the weight step, share one compiled pass.

References:
  Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
  equations 6 to 8; methods.md 4.3.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from adarts_jax.architecture import ArchitectureParams
from adarts_jax.bilevel.gradients import Batch, Gradients, first_order, loss_of
from adarts_jax.bilevel.optimizers import Optimizers, descend, global_norm
from adarts_jax.bilevel.steps import (
    ARCHITECTURE,
    QUANTITIES,
    WEIGHT,
    SearchState,
    pass_key,
    phase_values,
    update_architecture,
    update_weights,
)

Hessian = Literal["finite_difference", "exact"]
Point = tuple[PyTree, PyTree]  # weights, architecture

# Next to the phases of the first order, which mean here: the validation gradient at
# the virtual weights, and the weight step.
VIRTUAL, PLUS, MINUS, PRODUCT = 2, 3, 4, 5
PHASES: dict[Hessian, tuple[int, ...]] = {
    "finite_difference": (VIRTUAL, ARCHITECTURE, PLUS, MINUS, WEIGHT),
    "exact": (VIRTUAL, ARCHITECTURE, PRODUCT, WEIGHT),
}
RADIUS = 0.01  # of the finite difference, in units of the direction


@struct.dataclass
class Unrolling:
    """What the phases of one step hand on; meaningless between steps.

    Attributes:
      point: weights and architecture at which the next phase differentiates.
      direction: ``v``, likewise for both; zeros for an architecture that stays.
      direct: ``grad_a L_val(w', a)``, of the structure of the architecture.
      plus: architecture gradient at ``w + eps v``.
    """

    point: PyTree
    direction: PyTree
    direct: PyTree
    plus: PyTree


def begin_unrolling(state: SearchState) -> SearchState:
    """Return the state with room for what the phases hand on."""
    nothing = partial(jax.tree.map, jnp.zeros_like)
    point = (state.params, state.arch)
    return dataclasses.replace(
        state,
        unrolling=Unrolling(
            nothing(point), nothing(point), nothing(state.arch), nothing(state.arch)
        ),
    )


def unrolled_phase(
    state: SearchState,
    batch: Batch,
    phase: Int[Array, ""],
    *,
    network: nn.Module,
    optimizers: Optimizers,
    weight_learning_rate: Float[Array, ""] | float,
    architecture_learning_rate: Float[Array, ""] | float,
    moves_architecture: bool = False,
    seed: int | None = None,
) -> tuple[SearchState, Float[Array, " quantity"]]:
    """Take one phase of a step of second order, chosen by a traced number.

    The order of the phases is ``PHASES[...]``; arguments and result are those of
    ``search_phase``. The architecture phase sees a batch of the architecture split, all
    others the same batch of the weight split.

    Args:
      state: the state before, see ``begin_unrolling``.
      batch: images and labels of the split that belongs to the phase.
      phase: any of ``PHASES``, but ``PRODUCT`` (see ``product_phase``).
      network: the search network.
      optimizers: one per level, and that of the virtual step.
      weight_learning_rate: eta; may be traced.
      architecture_learning_rate: xi; may be traced.
      moves_architecture: let the virtual step and the finite difference move the
        architecture as if it belonged to the weights (Att-DARTS' published code).
      seed: of networks that draw; None for the others.

    Differs from the original: the weights are not clipped in the virtual step, as in
    the original, although the real step clips; the running statistics take in the
    passes at w, w + eps v and w - eps v, as there.
    """
    start = (state.params, state.arch)
    on_the_way = (phase != VIRTUAL) & (phase != WEIGHT)
    params, arch = jax.tree.map(
        partial(jnp.where, on_the_way), state.unrolling.point, start
    )
    key = None if seed is None else pass_key(seed, state, phase)
    found = first_order(network, params, arch, state.batch_stats, batch, key=key)
    context = dict(optimizers=optimizers, rate=weight_learning_rate)
    branches = {
        ARCHITECTURE: partial(_look_ahead, moves=moves_architecture),
        WEIGHT: partial(_weight_step, **context),
        VIRTUAL: partial(_virtual_step, **context, moves=moves_architecture),
        PLUS: _keep_plus,
        MINUS: partial(
            _finish, **context, architecture_rate=architecture_learning_rate
        ),
    }
    return lax.switch(phase, [branches[n] for n in sorted(branches)], state, found)


def product_phase(
    state: SearchState,
    batch: Batch,
    phase: Int[Array, ""],
    *,
    network: nn.Module,
    optimizers: Optimizers,
    weight_learning_rate: Float[Array, ""] | float,
    architecture_learning_rate: Float[Array, ""] | float,
    seed: int | None = None,
) -> tuple[SearchState, Float[Array, " quantity"]]:
    """Finish the architecture step with the exact product, forward over reverse.

    In the place of ``PLUS`` and ``MINUS``; arguments as in ``unrolled_phase``. The
    running statistics stay: the virtual step has taken this batch in.
    """
    key = None if seed is None else pass_key(seed, state, phase)

    loss_at = partial(loss_of, network, state.batch_stats, batch, key=key)

    def to_arch(params: PyTree) -> ArchitectureParams:
        # Towards the weights too, which nobody uses: so that every layer's own
        # gradient rule, which has no forward derivative, is replaced by its parts.
        gradients, _ = jax.grad(loss_at, argnums=(0, 1), has_aux=True)(
            params, state.arch
        )
        return gradients[1]

    _, product = jax.jvp(to_arch, (state.params,), (state.unrolling.direction[0],))
    return _architecture_step(
        state, product, optimizers, weight_learning_rate, architecture_learning_rate
    )


def _virtual_step(
    state: SearchState,
    found: Gradients,
    *,
    optimizers: Optimizers,
    rate: Float[Array, ""] | float,
    moves: bool,
) -> tuple[SearchState, Float[Array, " quantity"]]:
    params, _ = descend(
        optimizers.virtual, found.params, state.weight_opt_state, state.params, rate
    )
    arch = state.arch
    if moves:
        still = jax.tree.map(jnp.zeros_like, arch)
        # The optimizer of the weights, whose buffer is empty for the architecture.
        opt_state = optimizers.virtual.init(still)
        arch, _ = descend(optimizers.virtual, found.arch, opt_state, arch, rate)
    return _hand_on(state, found, point=(params, arch)), _nothing()


def _weight_step(
    state: SearchState,
    found: Gradients,
    *,
    optimizers: Optimizers,
    rate: Float[Array, ""] | float,
) -> tuple[SearchState, Float[Array, " quantity"]]:
    values = phase_values(found, found.params)
    return update_weights(state, found, optimizers, rate), values


def _look_ahead(
    state: SearchState, found: Gradients, *, moves: bool
) -> tuple[SearchState, Float[Array, " quantity"]]:
    """Keep both gradients at the virtual weights; go to ``w + eps v``."""
    still = jax.tree.map(jnp.zeros_like, found.arch)
    direction = (found.params, found.arch if moves else still)
    state = _hand_on(
        state,
        found._replace(batch_stats=state.batch_stats),  # those of another network
        direction=direction,
        direct=found.arch,
        point=_shift(state, direction, +1),
    )
    values = phase_values(found, found.arch)
    return state, values.at[QUANTITIES.index("gradient_norm")].set(0)


def _keep_plus(
    state: SearchState, found: Gradients
) -> tuple[SearchState, Float[Array, " quantity"]]:
    """Keep the gradient at ``w + eps v``; go to ``w - eps v``."""
    point = _shift(state, state.unrolling.direction, -1)
    return _hand_on(state, found, plus=found.arch, point=point), _nothing()


def _finish(
    state: SearchState,
    found: Gradients,
    *,
    optimizers: Optimizers,
    rate: Float[Array, ""] | float,
    architecture_rate: Float[Array, ""] | float,
) -> tuple[SearchState, Float[Array, " quantity"]]:
    """Update the architecture with the difference of the two gradients."""
    radius = _radius(state.unrolling.direction)
    product = jax.tree.map(
        lambda plus, minus: (plus - minus) / (2 * radius),
        state.unrolling.plus,
        found.arch,
    )
    state = dataclasses.replace(state, batch_stats=found.batch_stats)
    return _architecture_step(state, product, optimizers, rate, architecture_rate)


def _architecture_step(
    state: SearchState,
    product: ArchitectureParams,
    optimizers: Optimizers,
    rate: Float[Array, ""] | float,
    architecture_rate: Float[Array, ""] | float,
) -> tuple[SearchState, Float[Array, " quantity"]]:
    gradient = jax.tree.map(
        lambda direct, h: direct - rate * h, state.unrolling.direct, product
    )
    state = _hand_on(state, None, direct=gradient)
    norm = global_norm(gradient)
    values = _nothing().at[QUANTITIES.index("gradient_norm")].set(norm)
    return update_architecture(state, gradient, optimizers, architecture_rate), values


def _radius(direction: Point) -> Float[Array, ""]:
    return RADIUS / global_norm(direction)


def _shift(state: SearchState, direction: Point, sign: int) -> Point:
    step = sign * _radius(direction)
    return jax.tree.map(
        lambda x, v: x + step * v, (state.params, state.arch), direction
    )


def _hand_on(
    state: SearchState, found: Gradients | None, **values: PyTree
) -> SearchState:
    unrolling = dataclasses.replace(state.unrolling, **values)
    stats = state.batch_stats if found is None else found.batch_stats
    return dataclasses.replace(state, unrolling=unrolling, batch_stats=stats)


def _nothing() -> Float[Array, " quantity"]:
    return jnp.zeros(len(QUANTITIES), jnp.float32)
