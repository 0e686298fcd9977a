"""The compiled inside of an epoch of retraining: batch, mixture, step, sums.

Pure functions on device arrays; no files, clocks or networks.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import jax
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from adarts_jax.engine.epoch import (
    Batching,
    EpochData,
    Training,
    add_values,
    make_batch,
    step_key,
)

NUM_PHASES = 1

# Key, images and labels -> images and targets.
Mix = Callable[[PRNGKeyArray, Array, Array], tuple[Array, Array]]


class Update(Protocol):
    """One update of the weights."""

    def __call__(
        self,
        state: PyTree,
        batch: tuple[Array, Array, Array],
        key: PRNGKeyArray,
        *,
        learning_rate: Float[Array, ""],
        drop_path_rate: Float[Array, ""],
    ) -> tuple[PyTree, Float[Array, " quantity"]]:
        """Return the next state and what was measured; ``state.step`` counts."""
        ...


@struct.dataclass
class RetrainPace:
    """What the host decides per epoch; traced, so that one program serves all.

    Attributes:
      learning_rate: float32 scalar.
      drop_path_rate: float32 scalar.
    """

    learning_rate: PyTree
    drop_path_rate: PyTree


def train_step(
    training: Training,
    data: EpochData,
    order: Int[Array, "step batch"],
    pace: RetrainPace,
    *,
    update: Update,
    batching: Batching,
    mix: Mix,
) -> Training:
    """Make the batch of the step the state is at, and update with it.

    Every random number is a function of the root key and the step number, so a resumed
    run continues exactly.
    """
    number = training.state.step
    within = number % batching.steps_per_epoch
    to_batch, to_mix, to_drop = jax.random.split(step_key(data, number), 3)
    images, labels = make_batch(to_batch, data, order[within], batching)
    images, targets = mix(to_mix, images, labels)
    state, values = update(
        training.state,
        (images, labels, targets),
        to_drop,
        learning_rate=pace.learning_rate,
        drop_path_rate=pace.drop_path_rate,
    )
    first = within == 0
    return Training(
        state, add_values(training.metrics, values, 0, number, is_first=first)
    )


def train_steps(
    training: Training,
    data: EpochData,
    order: Int[Array, "step batch"],
    pace: RetrainPace,
    times: Int[Array, ""],
    *,
    update: Update,
    batching: Batching,
    mix: Mix,
) -> Training:
    """Take ``times`` (traced) steps inside one program."""
    step = partial(train_step, update=update, batching=batching, mix=mix)
    return lax.fori_loop(
        0, times, lambda _, carry: step(carry, data, order, pace), training
    )
