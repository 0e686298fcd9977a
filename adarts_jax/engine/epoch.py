"""What every compiled epoch shares: data on the device, order, batches, sums.

Pure functions on device arrays; nothing here knows files, clocks or networks, nor what
a step does with its batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

Batch = tuple[Float[Array, "batch height width channel"], Int[Array, " batch"]]
Transform = Callable[..., Array]  # of a key and pixels

# Purposes of random numbers, folded into the root key; 2 and 3 draw the first state.
_ORDER, _STEPS, _ROLLBACKS = 0, 1, 4


@struct.dataclass
class EpochData:
    """Everything a step draws from, on the device for the whole run.

    Attributes:
      images: uint8 (example, height, width, channel).
      labels: int32 (example,).
      weight_indices: int32, examples that train the weights.
      key: root of the random numbers of the run.
    """

    images: PyTree
    labels: PyTree
    weight_indices: PyTree
    key: PyTree


Data = TypeVar("Data", bound=EpochData)


@struct.dataclass
class MetricSums:
    """Sums over the steps of the current epoch; part of every checkpoint.

    Attributes:
      sums: float32 (phase, quantity); not a number for a phase that is left out.
      count: int32, steps summed.
      first_bad_step: int32, first step with a loss or gradient that is not finite, -1
        for none.
    """

    sums: PyTree
    count: PyTree
    first_bad_step: PyTree


@struct.dataclass
class Training:
    """The whole of a run between two steps: *this* is what a checkpoint holds.

    Attributes:
      state: with a field ``step``, the number of steps done.
      metrics: sums of the epoch so far.
    """

    state: Any
    metrics: MetricSums


@dataclasses.dataclass(frozen=True)
class Batching:
    """How batches are made; static.

    Attributes:
      batch_size: images per batch, of any split.
      steps_per_epoch: batches per pass over the weight split; the rest that fills no
        batch is left out (another rest in every epoch).
      transform: augments and normalises the pixels of a batch, given a key.
    """

    batch_size: int
    steps_per_epoch: int
    transform: Transform


def zero_metrics(num_phases: int, num_quantities: int) -> MetricSums:
    """Return sums over no step."""
    sums = jnp.zeros((num_phases, num_quantities), jnp.float32)
    return MetricSums(sums, jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32))


def draw_order(
    data: EpochData, epoch: Int[Array, ""], *, batching: Batching
) -> Int[Array, "step batch"]:
    """Shuffle the weight split for one epoch and cut it into batches.

    Differs from the original: the last batch, where it is not full, is left out,
    because compiled shapes are fixed.
    """
    key = jax.random.fold_in(jax.random.fold_in(data.key, _ORDER), epoch)
    shuffled = jax.random.permutation(key, data.weight_indices)
    steps, size = batching.steps_per_epoch, batching.batch_size
    return shuffled[: steps * size].reshape(steps, size)


def redrawn(data: Data, rollbacks: int) -> Data:
    """Return data with other random numbers for each time a run has gone back."""
    if not rollbacks:
        return data

    def redraw(key: PRNGKeyArray) -> PRNGKeyArray:
        return jax.random.fold_in(jax.random.fold_in(key, _ROLLBACKS), rollbacks)

    # (search,) where there are several
    key = jax.vmap(redraw)(data.key) if data.key.ndim else redraw(data.key)
    return dataclasses.replace(data, key=key)


def step_key(data: EpochData, number: Int[Array, ""]) -> PRNGKeyArray:
    """Return the key of a step: a resumed run continues exactly."""
    return jax.random.fold_in(jax.random.fold_in(data.key, _STEPS), number)


def make_batch(
    key: PRNGKeyArray,
    data: EpochData,
    indices: Int[Array, " batch"],
    batching: Batching,
) -> Batch:
    """Gather images and labels, augmented and normalised."""
    images = batching.transform(key, data.images[indices])
    return images, data.labels[indices]


def add_values(
    metrics: MetricSums,
    values: Float[Array, " quantity"],
    phase: Int[Array, ""] | int,
    number: Int[Array, ""],
    *,
    is_first: Array,
) -> MetricSums:
    """Add what a phase measured; the first phase of an epoch starts the sums anew.

    Args:
      metrics: sums so far.
      values: what was measured.
      phase: row of the sums; the last row counts the steps.
      number: of the step.
      is_first: whether the epoch begins here.
    """
    # The phases that are left out stay "not a number".
    rows = jnp.arange(len(metrics.sums))
    blank = jnp.where((rows < phase)[:, None], jnp.nan, jnp.zeros_like(metrics.sums))
    sums = jnp.where(is_first, blank, metrics.sums).at[phase].add(values)
    count = jnp.where(is_first, 0, metrics.count) + (phase == len(rows) - 1)
    bad = (metrics.first_bad_step < 0) & ~jnp.isfinite(values).all()
    return MetricSums(sums, count, jnp.where(bad, number, metrics.first_bad_step))
