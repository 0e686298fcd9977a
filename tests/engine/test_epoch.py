"""The inside of an epoch: who sees which images, and what the sums mean."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from adarts_jax.engine import epoch
from adarts_jax.engine.epoch import Batching, Pace, SearchData, Training

BATCHING = Batching(
    batch_size=4,
    steps_per_epoch=3,
    pad=0,
    flip=False,
    cutout_size=0,
    mean=(0.0,),
    std=(1 / 255,),
)
NUM_WEIGHT, NUM_ARCHITECTURE, MAX_STEPS = 13, 9, 12
NAMES = ("weight/loss", "architecture/loss")


@struct.dataclass
class Diary:
    """A state that remembers which images every step saw."""

    step: object
    weight: object
    architecture: object
    rates: object


def blank():
    state = Diary(
        step=jnp.int32(0),
        weight=jnp.zeros((MAX_STEPS, 4), jnp.int32),
        architecture=jnp.zeros((MAX_STEPS, 4), jnp.int32),
        rates=jnp.zeros((MAX_STEPS, 2)),
    )
    return Training(state, epoch.zero_metrics(NAMES))


def write_diary(
    state,
    weight_batch,
    architecture_batch,
    *,
    weight_learning_rate,
    architecture_learning_rate,
    update_architecture,
    bad_step=None,
):
    """Write down the labels; the loss is the number of the step."""
    rows = {}
    for name, (images, labels) in {
        "weight": weight_batch,
        "architecture": architecture_batch,
    }.items():
        # images carry their own number as only pixel, labels the same plus 100
        same = (jnp.round(images.reshape(-1)) == labels - 100).all()
        row = jnp.where(same, labels - 100, -1)
        rows[name] = getattr(state, name).at[state.step].set(row)
    rates = jnp.stack([weight_learning_rate, architecture_learning_rate])
    loss = state.step.astype(jnp.float32)
    if bad_step is not None:
        loss = jnp.where(state.step >= bad_step, jnp.inf, loss)
    metrics = {
        "weight/loss": loss,
        "architecture/loss": jnp.where(update_architecture, 2 * loss, jnp.nan),
    }
    rates = state.rates.at[state.step].set(rates)
    return Diary(state.step + 1, **rows, rates=rates), metrics


def make_data(seed=0):
    """Return images whose only pixel is their number; weight images come first."""
    count = NUM_WEIGHT + NUM_ARCHITECTURE
    return SearchData(
        images=jnp.arange(count, dtype=jnp.uint8).reshape(count, 1, 1, 1),
        labels=jnp.arange(count, dtype=jnp.int32) + 100,
        weight_indices=jnp.arange(NUM_WEIGHT),
        architecture_indices=jnp.arange(NUM_WEIGHT, count),
        key=jax.random.key(seed),
    )


def make_pace(*, update=True):
    return Pace(jnp.float32(0.5), jnp.float32(0.25), jnp.bool(update))


draw_order = jax.jit(partial(epoch.draw_order, batching=BATCHING))


@partial(jax.jit, static_argnames="bad_step")
def one_step(training, data, order, pace, *, bad_step=None):
    step = partial(write_diary, bad_step=bad_step)
    return epoch.train_step(training, data, order, pace, step=step, batching=BATCHING)


def run(steps, *, data=None, training=None, first=0, **options):
    data = data or make_data()
    training = training or blank()
    for number in range(first, steps):
        order = draw_order(data, jnp.int32(number // BATCHING.steps_per_epoch))
        training = one_step(training, data, order, make_pace(), **options)
    return training


@pytest.fixture(scope="module")
def diary():
    return jax.device_get(run(12).state)


def test_weight_images_come_once_per_epoch_in_a_new_order(diary):
    epochs = diary.weight.reshape(4, -1)
    for seen in epochs:
        assert len(set(seen)) == 12  # of 13: one is left out
        assert set(seen) <= set(range(NUM_WEIGHT))
    assert len({tuple(seen) for seen in epochs}) == 4
    assert len({frozenset(seen) for seen in epochs}) > 1  # another one each time


def test_architecture_batches_are_fresh_draws_from_their_split(diary):
    for batch in diary.architecture:
        assert len(set(batch)) == 4
        assert set(batch) <= set(range(NUM_WEIGHT, NUM_WEIGHT + NUM_ARCHITECTURE))
    # drawn anew, not dealt: three steps of four from nine repeat some images
    epochs = diary.architecture.reshape(4, -1)
    assert any(len(set(seen)) < 9 for seen in epochs)
    assert len({tuple(batch) for batch in diary.architecture}) == 12


def test_draws_without_repetition_are_uniform():
    draw = jax.jit(
        jax.vmap(lambda key: epoch.draw_without_repetition(key, jnp.arange(5), 3))
    )
    drawn = np.asarray(draw(jax.random.split(jax.random.key(1), 4000)))
    assert all(len(set(row)) == 3 for row in drawn)
    for place in drawn.T:  # 800 each expected, standard deviation 25
        assert np.abs(np.bincount(place, minlength=5) - 800).max() < 125


def test_rates_reach_the_step(diary):
    np.testing.assert_array_equal(diary.rates, [[0.5, 0.25]] * 12)


def test_the_seed_decides_everything():
    first, again = run(4), run(4)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = run(4, data=make_data(seed=1)).state
    assert (other.weight != first.state.weight).any()
    assert (other.architecture != first.state.architecture).any()


def test_sums_start_anew_with_each_epoch():
    metrics = run(3).metrics
    assert metrics.sums["weight/loss"] == 0 + 1 + 2
    assert (metrics.count, metrics.first_bad_step) == (3, -1)
    metrics = run(5).metrics
    assert metrics.sums["weight/loss"] == 3 + 4
    assert metrics.sums["architecture/loss"] == 6 + 8
    assert metrics.count == 2


def test_frozen_architecture_is_no_divergence_and_does_not_stick():
    data, training = make_data(), blank()
    for number in range(4):  # a warm-up epoch, and one step of the next
        order = draw_order(data, jnp.int32(number // 3))
        pace = make_pace(update=number >= 3)
        training = one_step(training, data, order, pace)
        assert training.metrics.first_bad_step == -1
        assert jnp.isnan(training.metrics.sums["architecture/loss"]) == (number < 3)


def test_the_first_bad_step_is_remembered():
    metrics = run(6, bad_step=2).metrics
    assert metrics.first_bad_step == 2
    assert run(2, bad_step=2).metrics.first_bad_step == -1


def test_any_number_of_steps_in_one_program_is_the_same():
    """The loop on the device equals single steps, whatever the chunks."""
    data = make_data()
    order = draw_order(data, jnp.int32(0))
    compiled = []

    @partial(jax.jit, donate_argnums=0)
    def many(training, times):
        compiled.append(1)
        once = lambda carry: epoch.train_step(  # noqa: E731
            carry, data, order, make_pace(), step=write_diary, batching=BATCHING
        )
        return epoch.repeat(once, training, times)

    chunked = many(many(blank(), jnp.int32(1)), jnp.int32(2))
    jax.tree.map(np.testing.assert_array_equal, chunked, run(3))
    jax.tree.map(np.testing.assert_array_equal, many(blank(), jnp.int32(3)), run(3))
    assert len(compiled) == 1


def test_augmentation_differs_between_batches_steps_and_images():
    """Every image is cropped by numbers of its own."""
    batching = Batching(4, 3, 3, False, 0, (0.0,), (1 / 255,))
    column = jnp.arange(16, dtype=jnp.uint8)  # a crop is known by its first pixel
    data = make_data().replace(
        images=jnp.broadcast_to(column[None, :, None, None], (22, 16, 16, 1))
    )
    seen = []

    def look(state, weight_batch, architecture_batch, **pace):
        seen.append(
            [batch[0][:, 8, 8, 0] for batch in (weight_batch, architecture_batch)]
        )
        return state.replace(step=state.step + 1), dict.fromkeys(NAMES, jnp.float32(0))

    order = epoch.draw_order(data, jnp.int32(0), batching=batching)
    training = blank()
    for _ in range(3):
        training = epoch.train_step(
            training, data, order, make_pace(), step=look, batching=batching
        )
    batches = {tuple(np.asarray(rows).tolist()) for pair in seen for rows in pair}
    assert len(batches) == 6
    assert any(len(set(rows)) > 1 for rows in batches)
