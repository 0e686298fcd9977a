"""The inside of an epoch: who sees which images, and what the sums mean."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from adarts_jax.bilevel.steps import ARCHITECTURE, WEIGHT
from adarts_jax.data import augment
from adarts_jax.engine import epoch, search_epoch
from adarts_jax.engine.epoch import Batching, Training
from adarts_jax.engine.search_epoch import Pace, SearchData


def make_batching(pad):
    transform = partial(
        augment.augment,
        pad=pad,
        flip=False,
        cutout_size=0,
        mean=(0.0,),
        std=(1 / 255,),
    )
    return Batching(batch_size=4, steps_per_epoch=3, transform=transform)


BATCHING = make_batching(pad=0)
NUM_WEIGHT, NUM_ARCHITECTURE, MAX_STEPS = 13, 9, 12


@struct.dataclass
class Diary:
    """A state that remembers which images every phase of every step saw."""

    step: object
    seen: object
    rates: object


def blank():
    state = Diary(
        step=jnp.int32(0),
        seen=jnp.full((2, MAX_STEPS, 4), -2, jnp.int32),
        rates=jnp.zeros((MAX_STEPS, 2)),
    )
    return Training(state, epoch.zero_metrics(2, 2))


def write_diary(
    state,
    batch,
    phase,
    *,
    weight_learning_rate,
    architecture_learning_rate,
    bad_step=None,
):
    """Write down the images; measure the number of the step, and the phase."""
    images, labels = batch
    # images carry their own number as only pixel, labels the same plus 100
    same = (jnp.round(images.reshape(-1)) == labels - 100).all()
    row = jnp.where(same, labels - 100, -1)
    loss = state.step.astype(jnp.float32)
    if bad_step is not None:
        loss = jnp.where(state.step >= bad_step, jnp.inf, loss)
    rates = jnp.stack([weight_learning_rate, architecture_learning_rate])
    after = Diary(
        step=state.step + phase,
        seen=state.seen.at[phase, state.step].set(row),
        rates=state.rates.at[state.step].set(rates),
    )
    return after, jnp.stack([loss, 10 + phase.astype(jnp.float32)])


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


draw_orders = jax.jit(
    partial(search_epoch.draw_orders, batching=BATCHING), static_argnames="one_pass"
)


@partial(jax.jit, static_argnames="bad_step")
def one_phase(training, data, orders, pace, phase, *, bad_step=None):
    update = partial(write_diary, bad_step=bad_step)
    return search_epoch.train_phase(
        training, data, orders, pace, phase, update=update, batching=BATCHING
    )


def run(steps, *, data=None, warmup=0, one_pass=False, **options):
    """Take steps phase by phase, as the host does on a CPU."""
    data, training = data or make_data(), blank()
    for number in range(steps):
        pace = make_pace(update=number >= warmup)
        place = jnp.int32(number // BATCHING.steps_per_epoch)
        orders = draw_orders(data, place, one_pass=one_pass)
        for phase in (ARCHITECTURE, WEIGHT) if number >= warmup else (WEIGHT,):
            training = one_phase(
                training, data, orders, pace, jnp.int32(phase), **options
            )
    return training


@pytest.fixture(scope="module")
def diary():
    return jax.device_get(run(12).state)


def test_weight_images_come_once_per_epoch_in_a_new_order(diary):
    epochs = diary.seen[WEIGHT].reshape(4, -1)
    for seen in epochs:
        assert len(set(seen)) == 12  # of 13: one is left out
        assert set(seen) <= set(range(NUM_WEIGHT))
    assert len({tuple(seen) for seen in epochs}) == 4
    assert len({frozenset(seen) for seen in epochs}) > 1  # another one each time


def test_architecture_batches_are_fresh_draws_from_their_split(diary):
    for batch in diary.seen[ARCHITECTURE]:
        assert len(set(batch)) == 4
        assert set(batch) <= set(range(NUM_WEIGHT, NUM_WEIGHT + NUM_ARCHITECTURE))
    # drawn anew, not dealt: three steps of four from nine repeat some images
    epochs = diary.seen[ARCHITECTURE].reshape(4, -1)
    assert any(len(set(seen)) < 9 for seen in epochs)
    assert len({tuple(batch) for batch in diary.seen[ARCHITECTURE]}) == 12


def test_one_pass_deals_the_architecture_split_in_order():
    """As Att-DARTS: nine images fill two batches of four, then it begins anew."""
    seen = jax.device_get(run(12, one_pass=True).state.seen)
    own = set(range(NUM_WEIGHT, NUM_WEIGHT + NUM_ARCHITECTURE))
    epochs = seen[ARCHITECTURE].reshape(4, -1)
    for images in epochs:
        assert set(images[:9]) == own
        assert images[9:].tolist() == images[:3].tolist()
    assert len({tuple(images) for images in epochs}) == 4
    fresh = jax.device_get(run(12).state.seen)
    np.testing.assert_array_equal(seen[WEIGHT], fresh[WEIGHT])


def test_draws_without_repetition_are_uniform():
    draw = jax.jit(
        jax.vmap(
            lambda key: search_epoch.draw_without_repetition(key, jnp.arange(5), 3)
        )
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
    for phase in (ARCHITECTURE, WEIGHT):
        assert (other.seen[phase, :4] != first.state.seen[phase, :4]).any()


def test_sums_start_anew_with_each_epoch():
    metrics = run(3).metrics
    np.testing.assert_array_equal(metrics.sums, [[0 + 1 + 2, 30], [0 + 1 + 2, 33]])
    assert (metrics.count, metrics.first_bad_step) == (3, -1)
    metrics = run(5).metrics
    np.testing.assert_array_equal(metrics.sums, [[3 + 4, 20], [3 + 4, 22]])
    assert metrics.count == 2


def test_frozen_architecture_is_not_a_number_and_no_divergence():
    nan = np.nan
    metrics = run(3, warmup=3).metrics
    np.testing.assert_array_equal(metrics.sums, [[nan, nan], [3, 33]])
    assert (metrics.count, metrics.first_bad_step) == (3, -1)
    metrics = run(4, warmup=3).metrics  # one step of the next epoch
    np.testing.assert_array_equal(metrics.sums, [[3, 10], [3, 11]])
    assert (metrics.count, metrics.first_bad_step) == (1, -1)


def test_the_first_bad_step_is_remembered():
    assert run(6, bad_step=2).metrics.first_bad_step == 2
    assert run(6, bad_step=2, warmup=4).metrics.first_bad_step == 2
    assert run(2, bad_step=2).metrics.first_bad_step == -1


@pytest.mark.parametrize("warmup", [0, 3])
def test_any_number_of_steps_in_one_program_is_the_same(warmup):
    """The loop on the device equals calls from the host, whatever the chunks."""
    data = make_data()
    orders = draw_orders(data, jnp.int32(0), one_pass=False)
    traced = []

    @partial(jax.jit, donate_argnums=0)
    def many(training, pace, times):
        traced.append(1)
        return search_epoch.train_steps(
            training, data, orders, pace, times, update=write_diary, batching=BATCHING
        )

    pace = make_pace(update=not warmup)
    expected = run(3, warmup=warmup)
    chunked = many(many(blank(), pace, jnp.int32(1)), pace, jnp.int32(2))
    jax.tree.map(np.testing.assert_array_equal, chunked, expected)
    at_once = many(blank(), pace, jnp.int32(3))
    jax.tree.map(np.testing.assert_array_equal, at_once, expected)
    assert len(traced) == 1


def test_augmentation_differs_between_phases_steps_and_images():
    """Every image is cropped by numbers of its own."""
    batching = make_batching(pad=3)
    column = jnp.arange(16, dtype=jnp.uint8)  # a crop shows in the middle pixel
    data = make_data().replace(
        images=jnp.broadcast_to(column[None, :, None, None], (22, 16, 16, 1))
    )

    def look(state, batch, phase, **rates):
        middle = jnp.round(batch[0][:, 8, 8, 0]).astype(jnp.int32)
        seen = state.seen.at[phase, state.step].set(middle)
        return state.replace(step=state.step + phase, seen=seen), jnp.zeros(2)

    orders = search_epoch.draw_orders(
        data, jnp.int32(0), batching=batching, one_pass=False
    )
    steps = partial(search_epoch.train_steps, update=look, batching=batching)
    training = jax.jit(steps)(blank(), data, orders, make_pace(), jnp.int32(3))
    batches = np.asarray(training.state.seen[:, :3]).reshape(6, 4)
    assert len({tuple(batch) for batch in batches}) == 6
    assert any(len(set(batch)) > 1 for batch in batches)
    assert set(batches.ravel()) <= set(range(5, 12))
