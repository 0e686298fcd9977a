"""Second order: the gradient through one virtual step of the weights."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from arrays import draw
from flax import linen as nn
from jax.flatten_util import ravel_pytree

import adarts_jax as aj
from adarts_jax.architecture import ArchitectureParams
from adarts_jax.bilevel import steps, unrolled
from adarts_jax.bilevel.gradients import cross_entropy, first_order
from adarts_jax.bilevel.optimizers import make_optimizers
from adarts_jax.bilevel.search_state import SearchState, begin_joint_clipping
from adarts_jax.bilevel.steps import ARCHITECTURE, WEIGHT

ETA, MOMENTUM, DECAY = 0.3, 0.9, 0.01
TOLERANCE = {"exact": 1e-4, "finite_difference": 1e-2}


class Smooth(nn.Module):
    """Two layers whose hidden units the architecture mixes."""

    @nn.compact
    def __call__(self, arch: Any, images: jax.Array, *, train: bool) -> jax.Array:
        passes = self.variable("batch_stats", "passes", jnp.zeros, ())
        if train:
            passes.value += 1
        hidden = nn.Dense(6)(images.reshape(len(images), -1))
        mixed = arch.alpha_normal[0, 0] * jnp.tanh(hidden)
        mixed += arch.alpha_normal[0, 1] * jnp.sin(hidden)
        return nn.Dense(3)(mixed * jax.nn.softmax(arch.alpha_reduce[0])[0])


def draw_batch(seed: int) -> tuple[jax.Array, jax.Array]:
    return draw(seed, 24, 4, 4, 3), jnp.arange(24) % 3


def cells() -> tuple[Any, Any]:
    """One reduction cell of every operation that is smooth almost everywhere."""
    method = dataclasses.replace(
        aj.METHODS["darts"], primitives=("skip_connect", "avg_pool_3x3", "sep_conv_3x3")
    )
    network = method.make_network(
        init_channels=4, num_cells=1, num_classes=3, num_nodes=1
    )
    arch = method.init_architecture(jax.random.key(0), num_nodes=1)
    return network, jax.tree.map(lambda leaf: 500 * leaf, arch)


def smooth() -> tuple[Any, Any]:
    return Smooth(), ArchitectureParams(draw(1, 1, 2), draw(2, 1, 2))


def begin(network: Any, arch: Any, optimizers: Any) -> SearchState:
    """Return a state whose momentum is not zero."""
    state = steps.init_state(
        network, arch, optimizers, image_shape=(4, 4, 3), key=jax.random.key(0)
    )
    buffer = jax.tree.map(lambda p: draw(3, *p.shape), state.params)
    _, moved = optimizers.weight.update(buffer, state.weight_opt_state, state.params)
    return unrolled.begin_unrolling(dataclasses.replace(state, weight_opt_state=moved))


def walk(
    network: Any, optimizers: Any, state: SearchState, hessian: Any, **options: Any
) -> tuple[SearchState, dict[int, Any]]:
    """Take the phases of one step; return what each of them measured."""
    common = {
        "network": network,
        "optimizers": optimizers,
        "weight_learning_rate": ETA,
        "architecture_learning_rate": 0.1,
    }
    phase = jax.jit(functools.partial(unrolled.unrolled_phase, **common, **options))
    product = jax.jit(functools.partial(unrolled.product_phase, **common))
    train, valid = draw_batch(10), draw_batch(11)
    values = {}
    for number in unrolled.PHASES[hessian]:
        batch = valid if number == ARCHITECTURE else train
        update = product if number == unrolled.PRODUCT else phase
        state, values[number] = update(state, batch, jnp.int32(number))
    return state, values


def direct_gradient(network: Any, state: SearchState) -> Any:
    """Differentiate the validation loss behind one real step of SGD."""

    def loss(params: Any, arch: Any, batch: Any) -> jax.Array:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, _ = network.apply(
            variables, arch, batch[0], train=True, mutable=["batch_stats"]
        )
        return cross_entropy(logits, batch[1])

    trace: Any = state.weight_opt_state[-1]
    momentum = ravel_pytree(state.params)[1](trace.trace)

    def behind_a_step(arch: Any) -> jax.Array:
        gradient = jax.grad(loss)(state.params, arch, draw_batch(10))
        params = jax.tree.map(
            lambda p, g, b: p - ETA * (MOMENTUM * b + g + DECAY * p),
            state.params,
            gradient,
            momentum,
        )
        return loss(params, arch, draw_batch(11))

    return jax.jit(jax.grad(behind_a_step))(state.arch)


@pytest.fixture(
    scope="module", params=[smooth, pytest.param(cells, marks=pytest.mark.slow)]
)
def problem(request):
    network, arch = request.param()
    optimizers = make_optimizers(momentum=MOMENTUM, weight_decay=DECAY)
    state = begin(network, arch, optimizers)
    return network, optimizers, state, direct_gradient(network, state)


@pytest.mark.parametrize("hessian", TOLERANCE)
def test_gradient_is_that_through_one_step_of_sgd(problem, hessian):
    network, optimizers, state, want = problem
    after, values = walk(network, optimizers, state, hessian)
    got = after.unrolling.direct
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        limit = TOLERANCE[hessian] * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, atol=limit, rtol=0)
    norm = values[unrolled.PHASES[hessian][-2]][2]
    np.testing.assert_allclose(norm, optax.global_norm(want), rtol=TOLERANCE[hessian])


def test_the_implicit_term_matters():
    network, arch = smooth()
    optimizers = make_optimizers(momentum=MOMENTUM, weight_decay=DECAY)
    state = begin(network, arch, optimizers)
    _, first = steps.architecture_step(
        state, draw_batch(11), network=network, optimizers=optimizers, learning_rate=0.1
    )
    want = direct_gradient(network, state)
    assert not jnp.allclose(first.arch.alpha_reduce, want.alpha_reduce, rtol=0.05)


def test_phases_change_what_they_should():
    network, arch = smooth()
    optimizers = make_optimizers()
    state = begin(network, arch, optimizers)
    after, values = walk(network, optimizers, state, "finite_difference")
    assert after.step == state.step + 1
    assert not np.array_equal(state.arch.alpha_reduce, after.arch.alpha_reduce)
    loss, accuracy = np.asarray(values[ARCHITECTURE][:2])
    assert 0 < loss < 10
    assert 0 <= accuracy <= 1
    for number in (unrolled.VIRTUAL, unrolled.PLUS):
        assert not values[number].any()
    assert (values[WEIGHT][jnp.array([0, 2])] > 0).all()


def test_running_statistics_see_the_passes_at_the_weights_alone():
    """Four passes: at w, w + eps v, w - eps v, and the weight step."""
    network, arch = smooth()
    optimizers = make_optimizers()
    state = begin(network, arch, optimizers)
    after, _ = walk(network, optimizers, state, "finite_difference")
    assert after.batch_stats["passes"] == state.batch_stats["passes"] + 4
    after, _ = walk(network, optimizers, state, "exact")
    assert after.batch_stats["passes"] == state.batch_stats["passes"] + 2


def test_an_architecture_that_moves_gives_another_gradient():
    """Att-DARTS' published code moves the architecture in its virtual step."""
    network, arch = smooth()
    found = []
    for moves in (False, True):
        optimizers = make_optimizers(virtual_momentum=not moves)
        state = begin(network, arch, optimizers)
        after, _ = walk(
            network, optimizers, state, "finite_difference", moves_architecture=moves
        )
        found.append(after.unrolling.direct.alpha_normal)
    assert not np.allclose(*found, rtol=1e-2)


@pytest.mark.parametrize("phase", [steps.search_phase, unrolled.unrolled_phase])
def test_joint_clipping_counts_the_architecture(phase):
    """The gradient of the architecture step, never cleared, and that of this pass."""
    network, arch = smooth()
    optimizers = make_optimizers(gradient_clip=1e-3, weight_decay=0.0, momentum=0.0)
    plain = unrolled.begin_unrolling(
        steps.init_state(
            network, arch, optimizers, image_shape=(4, 4, 3), key=jax.random.key(0)
        )
    )
    ones = jax.tree.map(jnp.ones_like, arch)
    jointly = begin_joint_clipping(plain)
    assert not any(leaf.any() for leaf in jax.tree.leaves(jointly.left))
    after_step = steps.update_architecture(jointly, ones, optimizers, 0.0)
    lengths = []
    for state in (plain, jointly, after_step):
        after, values = phase(
            state,
            draw_batch(10),
            jnp.int32(WEIGHT),
            network=network,
            optimizers=optimizers,
            weight_learning_rate=1.0,
            architecture_learning_rate=0.1,
        )
        found = first_order(
            network, state.params, arch, state.batch_stats, draw_batch(10)
        )
        left = state.left or jax.tree.map(jnp.negative, found.arch)
        both = jax.tree.map(jnp.add, left, found.arch)
        norm = optax.global_norm((found.params, both))
        change = jax.tree.map(jnp.subtract, after.params, state.params)
        lengths.append(optax.global_norm(change))
        np.testing.assert_allclose(
            lengths[-1], 1e-3 * optax.global_norm(found.params) / norm, rtol=1e-2
        )
        np.testing.assert_allclose(values[2], optax.global_norm(found.params), rtol=0.1)
    assert lengths[0] > lengths[1] > 1.1 * lengths[2]
