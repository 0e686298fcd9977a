"""The training step: loss, running mean and drop path by their definitions."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adarts_jax as aj
from adarts_jax.bilevel.optimizers import make_optimizers
from adarts_jax.networks.derived_network import DerivedNetwork, init_variables
from adarts_jax.training.loss import heads_loss, smooth_targets
from adarts_jax.training.retrain_step import init_state, retrain_step, update_mean

CELL = [("max_pool_3x3", 0), ("avg_pool_3x3", 1)]
NETWORK = DerivedNetwork(
    aj.Genotype(CELL, [2], CELL, [2]), init_channels=2, num_cells=1, num_classes=3
)
OPTIMIZER = make_optimizers().weight


def test_smoothing_is_the_formula():
    targets = smooth_targets(jnp.array([1, 0]), num_classes=4, smoothing=0.1)
    low = 0.1 / 4
    high = 0.9 + low
    wanted = [[low, high, low, low], [high, low, low, low]]
    np.testing.assert_allclose(targets, wanted, rtol=1e-6)


def test_loss_is_that_of_both_heads():
    random = np.random.default_rng(0)
    logits, auxiliary = random.normal(size=(2, 5, 4)).astype(np.float32)
    labels = np.array([0, 3, 2, 1, 1])
    targets = smooth_targets(jnp.asarray(labels), num_classes=4)

    def by_hand(values):
        shares = np.exp(values) / np.exp(values).sum(1, keepdims=True)
        return -np.log(shares[np.arange(5), labels]).mean()

    found = heads_loss(jnp.asarray(logits), jnp.asarray(auxiliary), targets, 0.4)
    assert found == pytest.approx(by_hand(logits) + 0.4 * by_hand(auxiliary), rel=1e-5)
    found = heads_loss(jnp.asarray(logits), None, targets, 0.4)
    assert found == pytest.approx(by_hand(logits), rel=1e-5)


def test_running_mean_is_the_formula():
    mean, new = {"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, 0.0])}
    found = update_mean(mean, new, 0.75)
    np.testing.assert_allclose(found["a"], [1.5, 1.5])
    assert update_mean(None, new, None) is None


@pytest.fixture(scope="module")
def start():
    variables = init_variables(NETWORK, jax.random.key(0), (4, 4, 1))
    images = jax.random.normal(jax.random.key(1), (6, 4, 4, 1))
    labels = jnp.array([0, 1, 2, 0, 1, 2])
    return variables, (images, labels, smooth_targets(labels, num_classes=3))


@cache
def compiled(decay):
    settings = {"network": NETWORK, "optimizer": OPTIMIZER, "auxiliary_weight": 0.4}
    step = partial(retrain_step, mean_decay=decay, **settings)
    plain = jax.jit(partial(step, drop_path_rate=0.0))
    return {False: plain, True: jax.jit(step)}


def take(variables, batch, *, seed=0, decay=None, drop=None):
    state = init_state(variables, OPTIMIZER, keep_mean=decay is not None)
    rates = {"learning_rate": 0.1} | ({} if drop is None else {"drop_path_rate": drop})
    return compiled(decay)[drop is not None](
        state, batch, jax.random.key(seed), **rates
    )


def test_a_step_descends_and_counts(start):
    variables, batch = start
    state, (loss, accuracy, norm) = take(variables, batch)

    def loss_of(params):
        (logits, _), _ = NETWORK.apply(
            variables | {"params": params},
            batch[0],
            train=True,
            mutable=["batch_stats"],
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    wanted, gradient = jax.value_and_grad(loss_of)(variables["params"])
    assert loss == pytest.approx(float(wanted), rel=1e-5)
    assert norm == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)
    assert 0 <= accuracy <= 1
    assert state.step == 1
    old, new = (
        v["params"]["classifier"]["linear"]["kernel"]
        for v in (variables, state.variables)
    )
    slope = gradient["classifier"]["linear"]["kernel"] + 3e-4 * old
    np.testing.assert_allclose(new, old - 0.1 * slope, atol=1e-6)


def test_accuracy_is_counted_on_the_labels_not_the_targets(start):
    variables, (images, labels, targets) = start
    _, (loss, accuracy, _) = take(variables, (images, labels, targets))
    _, (other, same, _) = take(variables, (images, labels, targets[::-1]))
    assert accuracy == same
    assert loss != other


def test_the_mean_follows_and_is_what_is_tested(start):
    variables, batch = start
    plain, _ = take(variables, batch)
    state, _ = take(variables, batch, decay=0.9)
    close = partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, plain.variables, state.variables)
    wanted = jax.tree.map(
        lambda old, new: 0.9 * old + 0.1 * new, variables, plain.variables
    )
    jax.tree.map(close, state.mean_variables, wanted)
    assert state.tested_variables is state.mean_variables
    assert plain.tested_variables is plain.variables


def test_drop_path_is_random_and_off_at_zero(start):
    variables, batch = start
    losses = [float(take(variables, batch, seed=s, drop=0.5)[1][0]) for s in range(3)]
    assert len(set(losses)) == 3
    traced = take(variables, batch, drop=0.0)[1]
    np.testing.assert_allclose(traced, take(variables, batch)[1], rtol=1e-5)
