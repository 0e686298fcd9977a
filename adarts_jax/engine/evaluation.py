"""A trained network over a split: logits image by image, and what they are worth.

One path from images to numbers for retraining, evaluation and prediction, so that
they agree. Logits come to the host; the scores are plain NumPy.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from adarts_jax.data.augment import normalize
from adarts_jax.engine import compilation, devices
from adarts_jax.networks.derived_network import DerivedNetwork

TOP = 5

Images = jax.Array | np.ndarray
HostLogits = Float[np.ndarray, "batch class"]
HostLabels = Int[np.ndarray, " batch"]
Confusion = Int[np.ndarray, "class class"]


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What is subtracted from pixels scaled to [0, 1], and what they are divided by.

    Attributes:
      mean: per channel.
      std: per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Scores:
    """How good logits are.

    Attributes:
      num_images: how many were judged.
      correct: images whose label has the largest logit; the first of equals counts.
      top1: share of them, 0 to 1.
      top5: share of images whose label is among the five largest logits.
      loss: mean cross entropy, nats; not a number where a logit is.
    """

    num_images: int
    correct: int
    top1: float
    top5: float
    loss: float


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """A compiled network in evaluation mode; see ``compile_evaluator``.

    Attributes:
      program: variables and one batch -> logits.
      batch_size: images per call.
    """

    program: compilation.Program
    batch_size: int

    def logits(
        self,
        variables: PyTree,
        images: Images,
        *,
        progress: Callable[[int], None] = lambda done: None,
    ) -> HostLogits:
        """Return the logits of every image, in order.

        The last batch, where it is not full, starts earlier instead of being padded.

        Args:
          variables: ``params`` and ``batch_stats``.
          images: as many as the evaluator was compiled for or more; in host memory
            (sent batch by batch) or on the device.
          progress: called with the number of images done, after every batch.
        """
        starts = list(_starts(len(images), self.batch_size))
        calls = (
            self.program.call(variables, _window(images, start, self.batch_size))
            for start in starts
        )
        found: list[HostLogits] = []
        # In pairs: a batch is sent while the one before is still being computed.
        for computed, _ in itertools.pairwise(itertools.chain(calls, [None])):
            found.append(_fetch(computed))
            progress(starts[len(found) - 1] + self.batch_size)
        logits = np.empty((len(images), found[0].shape[1]), np.float32)
        for start, part in zip(starts, found, strict=True):
            logits[start : start + self.batch_size] = part
        return logits


def compile_evaluator(
    network: DerivedNetwork,
    variables: PyTree,
    images: Images,
    *,
    batch_size: int,
    normalization: Normalization | None,
    for_one_call: bool = False,
) -> Evaluator:
    """Compile a network for the images of a split.

    Args:
      network: what the variables belong to.
      variables: arrays, or their shapes and types.
      images: NHWC, at least one; only shape and type count. uint8 pixels, or float32
        images that are normalised already.
      batch_size: images per call; no more than there are.
      normalization: of pixels; None for images that are normalised already.
      for_one_call: whether a single batch is all there will ever be; on a CPU hardly
        any optimization is then quicker in the end.
    """
    size = min(batch_size, len(images))
    batch = jax.ShapeDtypeStruct((size, *images.shape[1:]), images.dtype)
    step = partial(evaluation_step, network=network, normalization=normalization)
    compile_it = compilation.compile_ahead
    if for_one_call:
        compile_it = compilation.compile_quickly
    return Evaluator(compile_it(step, variables, batch), size)


def evaluation_step(
    variables: PyTree,
    images: Array,
    *,
    network: DerivedNetwork,
    normalization: Normalization | None,
) -> Float[Array, "batch class"]:
    """Return the logits of one batch, with running statistics; pure.

    Args:
      variables: ``params`` and ``batch_stats``.
      images: NHWC; uint8 pixels, or float32 if ``normalization`` is None.
      network: what the variables belong to.
      normalization: of pixels; None for images that are normalised already.
    """
    if normalization is not None:
        images = normalize(images, normalization.mean, normalization.std)
    return network.apply(variables, images, train=False)[0]


def score(logits: HostLogits, labels: HostLabels) -> Scores:
    """Judge logits by the labels, in double precision.

    Args:
      logits: any number of images, at least one.
      labels: class of every image.
    """
    wide = logits.astype(np.float64)
    own = np.take_along_axis(wide, labels[:, None], axis=1)
    before = np.arange(wide.shape[1])[None] < labels[:, None]
    rank = (wide > own).sum(1) + ((wide == own) & before).sum(1)
    rank[np.isnan(wide).any(1)] = wide.shape[1] + TOP
    correct = int((rank == 0).sum())
    largest = wide.max(1, keepdims=True)
    losses = np.log(np.exp(wide - largest).sum(1)) - (own - largest)[:, 0]
    return Scores(
        num_images=len(labels),
        correct=correct,
        top1=correct / len(labels),
        top5=float((rank < TOP).mean()),
        loss=float(losses.mean()),
    )


def confusion_matrix(logits: HostLogits, labels: HostLabels) -> Confusion:
    """Count images by label (row) and predicted class (column)."""
    classes = logits.shape[1]
    pairs = labels.astype(np.int64) * classes + logits.argmax(1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_accuracy(confusion: Confusion) -> list[float | None]:
    """Return the share of right answers per label; None for one without images."""
    return [
        int(row[label]) / int(row.sum()) if row.sum() else None
        for label, row in enumerate(confusion)
    ]


def _starts(count: int, size: int) -> Iterator[int]:
    """Yield where windows of one size start that together cover everything."""
    for start in range(0, count, size):
        yield min(start, count - size)


def _fetch(array: jax.Array) -> np.ndarray:
    devices.wait_until_ready(array)
    return np.asarray(array)


def _window(images: Images, start: int, size: int) -> Images:
    if isinstance(images, np.ndarray):
        return images[start : start + size]
    return _slice(images, np.int32(start), size=size)


@partial(jax.jit, static_argnames="size")
def _slice(images: jax.Array, start: jax.Array, *, size: int) -> jax.Array:
    # `images[a:b]` would be compiled again for every place.
    return lax.dynamic_slice_in_dim(images, start, size)
