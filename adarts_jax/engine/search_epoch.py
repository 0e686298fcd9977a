"""The compiled inside of an epoch of a search.

A step has two phases, the update of the architecture and that of the weights, see
`Phase`. Pure functions on device arrays; no files, clocks or networks.
"""

import dataclasses
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from adarts_jax.bilevel.steps import ARCHITECTURE, WEIGHT
from adarts_jax.engine.epoch import (
    Batch,
    Batching,
    EpochData,
    Training,
    add_values,
    draw_order,
    make_batch,
    step_key,
)

_ARCHITECTURE_ORDER = 5  # purpose of a key, next to those of all other modules
NUM_PHASES = 2  # rows of the sums; a step of second order has more phases
FIRST_ORDER = (ARCHITECTURE, WEIGHT)


class Phase(Protocol):
    """One phase of a step: of the architecture, or the update of the weights."""

    def __call__(
        self,
        state: PyTree,
        batch: Batch,
        phase: Int[Array, ""],
        *,
        weight_learning_rate: Float[Array, ""],
        architecture_learning_rate: Float[Array, ""],
        **own_seed: Int[Array, ""],
    ) -> tuple[PyTree, Float[Array, " quantity"]]:
        """Return the next state and what was measured.

        ``state.step`` counts the weight phases.
        """
        ...


@struct.dataclass
class SearchData(EpochData):
    """Data of a search.

    Attributes:
      architecture_indices: int32, examples of the architecture split.
      seed: uint32 scalar, where several searches draw in their passes; else None, and
        that of the only one is part of the program.
      statistics: mean and deviation per channel, float32 (2, channel), where several
        searches differ in them; else None.
    """

    architecture_indices: PyTree
    seed: PyTree = None
    statistics: PyTree = None


class Orders(NamedTuple):
    """The batches of an epoch, as indices of images.

    Attributes:
      weight: of the weight split.
      architecture: of the architecture split; None where every step draws afresh.
    """

    weight: Int[Array, "step batch"]
    architecture: Int[Array, "step batch"] | None = None


@struct.dataclass
class Pace:
    """What the host decides per epoch; traced, so that one program serves all.

    Attributes:
      weight_learning_rate: float32 scalar.
      architecture_learning_rate: float32 scalar.
      update_architecture: bool scalar, False during warm-up.
    """

    weight_learning_rate: PyTree
    architecture_learning_rate: PyTree
    update_architecture: PyTree


def draw_orders(
    data: SearchData, epoch: Int[Array, ""], *, batching: Batching, one_pass: bool
) -> Orders:
    """Shuffle the weight split for one epoch, and the other one too if asked to.

    Args:
      data: on the device.
      epoch: number.
      batching: how batches are made.
      one_pass: whether the architecture split is passed through once, as in the
        published code of Att-DARTS; a split that is too short begins anew.
    """
    weight = draw_order(data, epoch, batching=batching)
    if not one_pass:
        return Orders(weight)
    key = jax.random.fold_in(jax.random.fold_in(data.key, _ARCHITECTURE_ORDER), epoch)
    shuffled = jax.random.permutation(key, data.architecture_indices)
    return Orders(weight, jnp.resize(shuffled, weight.shape))


def train_phase(
    training: Training,
    data: SearchData,
    orders: Orders,
    pace: Pace,
    phase: Int[Array, ""],
    *,
    update: Phase,
    batching: Batching,
    phases: tuple[int, ...] = FIRST_ORDER,
) -> Training:
    """Make the batch of a phase of the step the state is at, and update with it.

    The weight batch comes in the order of the epoch; so does the architecture batch if
    there is one, else it is a fresh random one, without repetition inside. Every random
    number is a function of the root key and the step number, so a resumed run continues
    exactly. Phases of the second order see the weight batch, the same one as the weight
    phase, and what they measure counts for the architecture.

    References:
      Liu et al., "DARTS", ICLR 2019, algorithm 1; fresh architecture batches as in the
      published code of PC-DARTS, ADARTS and alpha-ADARTS.
    """
    number = training.state.step
    within = number % batching.steps_per_epoch
    split = jnp.where(phase == ARCHITECTURE, ARCHITECTURE, WEIGHT)
    key = jax.random.fold_in(step_key(data, number), split)
    key, draw = jax.random.split(key)
    if orders.architecture is not None:
        other = orders.architecture[within]
    else:
        other = draw_without_repetition(
            draw, data.architecture_indices, batching.batch_size
        )
    indices = jnp.where(phase == ARCHITECTURE, other, orders.weight[within])
    own_seed = {} if data.seed is None else {"seed": data.seed}
    state, values = update(
        training.state,
        make_batch(key, data, indices, _own_batching(batching, data)),
        phase,
        weight_learning_rate=pace.weight_learning_rate,
        architecture_learning_rate=pace.architecture_learning_rate,
        **own_seed,
    )
    first = jnp.where(pace.update_architecture, phases[0], WEIGHT)
    is_first = (within == 0) & (phase == first)
    row = jnp.where(phase == WEIGHT, WEIGHT, ARCHITECTURE)
    metrics = add_values(training.metrics, values, row, number, is_first=is_first)
    return Training(state, metrics)


def _own_batching(batching: Batching, data: SearchData) -> Batching:
    """Normalise by the statistics of the search, where searches differ in them."""
    if data.statistics is None:
        return batching
    mean, std = data.statistics
    transform = partial(batching.transform, mean=mean, std=std)
    return dataclasses.replace(batching, transform=transform)


def train_steps(
    training: Training,
    data: SearchData,
    orders: Orders,
    pace: Pace,
    times: Int[Array, ""],
    *,
    update: Phase,
    batching: Batching,
    phases: tuple[int, ...] = FIRST_ORDER,
) -> Training:
    """Take ``times`` (traced) steps of all their phases inside one program."""
    run_phase = partial(train_phase, update=update, batching=batching, phases=phases)
    numbers = jnp.array(phases, jnp.int32)  # the weight phase is the last

    def one_step(_: Array, training: Training) -> Training:
        return lax.fori_loop(
            jnp.where(pace.update_architecture, 0, len(phases) - 1),
            len(phases),
            lambda place, carry: run_phase(carry, data, orders, pace, numbers[place]),
            training,
        )

    return lax.fori_loop(0, times, one_step, training)


def draw_without_repetition(
    key: PRNGKeyArray, indices: Int[Array, " example"], size: int
) -> Int[Array, " batch"]:
    """Draw ``size`` different elements in random order.

    Those with the largest of one uniform number each, which is quicker than a full
    permutation (64 of 25,000 on two CPU cores: 0.8 ms against 15 ms).
    """
    return indices[lax.top_k(jax.random.uniform(key, indices.shape), size)[1]]
