"""The inside of a retraining epoch: every image once, one draw per batch, sums."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from adarts_jax.engine import epoch, retrain_epoch
from adarts_jax.engine.epoch import Batching, EpochData, Training
from adarts_jax.engine.retrain_epoch import RetrainPace

BATCHING = Batching(3, 4, lambda key, pixels: pixels.astype(jnp.float32))
PACE = RetrainPace(jnp.float32(0.5), jnp.float32(0.25))


@struct.dataclass
class Diary:
    """A state that remembers what every step was given."""

    step: object
    seen: object
    draws: object
    rates: object


def blank():
    state = Diary(
        jnp.int32(0),
        jnp.full((8, 3), -1, jnp.int32),
        jnp.zeros((8, 2)),
        jnp.zeros((8, 2)),
    )
    return Training(state, epoch.zero_metrics(1, 2))


def mix(key, images, labels):
    """Make the draw of the batch its target."""
    return images, jax.random.uniform(key, (1,))


def update(state, batch, key, *, learning_rate, drop_path_rate):
    images, labels, targets = batch
    draws = jnp.stack([targets[0], jax.random.uniform(key)])
    rates = jnp.stack([learning_rate, drop_path_rate])
    number = images.reshape(-1).astype(jnp.int32)
    after = Diary(
        state.step + 1,
        state.seen.at[state.step].set(jnp.where(labels == number + 50, number, -2)),
        state.draws.at[state.step].set(draws),
        state.rates.at[state.step].set(rates),
    )
    return after, jnp.stack([state.step.astype(jnp.float32), jnp.float32(1)])


def make_data():
    return EpochData(
        images=jnp.arange(13, dtype=jnp.uint8).reshape(13, 1, 1, 1),
        labels=jnp.arange(13) + 50,
        weight_indices=jnp.arange(13),
        key=jax.random.key(0),
    )


def order_of(number):
    return epoch.draw_order(make_data(), jnp.int32(number), batching=BATCHING)


def run(steps):
    settings = {"update": update, "batching": BATCHING, "mix": mix}
    step = jax.jit(partial(retrain_epoch.train_step, **settings))
    training, data = blank(), make_data()
    for number in range(steps):
        training = step(training, data, order_of(number // 4), PACE)
    return training


def test_every_image_comes_once_per_epoch_and_every_draw_once():
    training = jax.device_get(run(8))
    for seen in training.state.seen.reshape(2, 12):
        assert len(set(seen)) == 12  # of 13: one is left out
        assert min(seen) >= 0  # with its own label
    assert (training.state.seen[:4] != training.state.seen[4:]).any()
    assert len(np.unique(training.state.draws)) == 16
    np.testing.assert_array_equal(training.state.rates, [[0.5, 0.25]] * 8)
    np.testing.assert_array_equal(training.metrics.sums, [[4 + 5 + 6 + 7, 4]])
    assert (training.metrics.count, training.metrics.first_bad_step) == (4, -1)


def test_a_loop_in_the_program_is_the_same():
    settings = {"update": update, "batching": BATCHING, "mix": mix}
    steps = jax.jit(partial(retrain_epoch.train_steps, **settings))
    training, data, order = blank(), make_data(), order_of(0)
    for times in (1, 3):
        training = steps(training, data, order, PACE, jnp.int32(times))
    jax.tree.map(np.testing.assert_array_equal, training, run(4))
