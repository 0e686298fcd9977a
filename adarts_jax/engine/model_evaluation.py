"""Judge a finished model by labelled images: load, check, run."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from adarts_jax.config_types import check_path
from adarts_jax.data import images, sources
from adarts_jax.data.images import ImageData
from adarts_jax.engine import devices, evaluation
from adarts_jax.engine.evaluation import Confusion, HostLogits, Normalization, Scores
from adarts_jax.errors import UserError, shorten
from adarts_jax.model_directory import Model
from adarts_jax.model_spec import ModelSpec

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model makes of a split.

    Attributes:
      scores: of the whole split.
      confusion: images by label and predicted class.
      class_names: of the data.
      images_per_second: over the whole split, without compiling.
      compile_seconds: before the first batch.
    """

    scores: Scores
    confusion: Confusion
    class_names: tuple[str, ...]
    images_per_second: float
    compile_seconds: float

    def record(self) -> dict[str, Any]:
        """Return the numbers by name, as JSON holds them."""
        shares = evaluation.class_accuracy(self.confusion)
        return {
            **dataclasses.asdict(self.scores),
            "images_per_second": round(self.images_per_second, 1),
            "compile_seconds": round(self.compile_seconds, 2),
            "per_class_accuracy": dict(zip(self.class_names, shares, strict=True)),
        }


def load_images(
    spec: ModelSpec,
    *,
    split: str,
    source: str | None = None,
    name: str | None = None,
    data_dir: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    center_crop: bool | None = None,
) -> ImageData:
    """Load a labelled split that a model can take.

    What is not given is as in ``spec.provenance["data"]``, if the source is the same.

    Args:
      spec: of the model.
      split: see `sources.load`, as are the following.
      source: None for the one in the provenance.
      name: which data set.
      data_dir: where it is.
      image_size: side in pixels.
      channels: 1 or 3; None for as many as the model takes, where that is a choice.
      center_crop: whether to take the middle of larger images; None for what the
        training did, which is known by the side it loaded.

    Raises:
      UserError: no such data, or it does not go with the model.
    """
    trained_on = _trained_on(spec)
    source = source or trained_on.get("source")
    if source is None:
        raise UserError(
            "the model does not say what it was trained on; name the data, such as "
            "--data.source tfds --data.name cifar10 --data.data-dir DIR"
        )
    if source == trained_on.get("source"):
        name = name or trained_on.get("name")
        image_size = image_size or trained_on.get("image_size")
        if center_crop is None and image_size is not None:
            center_crop = image_size == trained_on.get("image_size")
    if source in ("tfds", "folder") and spec.image_channels in (1, 3):
        channels = channels or spec.image_channels
    data = sources.load(
        source,
        split=split,
        data_dir=data_dir,
        name=name,
        image_size=image_size,
        channels=channels,
    )
    sides = zip(data.image_shape, spec.image_size, strict=False)
    if center_crop and all(has >= wanted for has, wanted in sides):
        data = images.center_crop(data, spec.image_size)
    check_fits(spec, data)
    return data


def check_fits(spec: ModelSpec, data: ImageData) -> None:
    """Check that a model can be judged by these images.

    Raises:
      UserError: other number of classes, other size or channels.
    """
    if data.num_classes != spec.num_classes:
        raise UserError(
            f"the model tells {spec.num_classes} classes apart, the data has "
            f"{data.num_classes}; use the data it was trained for, or retrain on this"
        )
    (height, width), (*size, channels) = spec.image_size, data.image_shape
    if channels != spec.image_channels:
        raise UserError(
            f"the model takes images of {spec.image_channels} channels, these have "
            f"{channels}; set data.channels={spec.image_channels} or use other data"
        )
    if (height, width) != tuple(size):
        way_out = f"data.image_size={height}, " if height == width else ""
        raise UserError(
            f"the model takes images of {height}x{width} pixels, these have "
            f"{size[0]}x{size[1]}; use {way_out}data.center_crop or other data"
        )
    numbers = tuple(map(str, range(spec.num_classes)))
    if spec.class_names not in (data.class_names, numbers):
        _logger.warning("the data names its classes differently from the model")


def evaluate_model(
    model: Model,
    data: ImageData,
    *,
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Run a model over a split and judge it.

    Args:
      model: network, weights and normalisation.
      data: images that fit it, see `check_fits`.
      batch_size: images per call.
      progress: see ``Evaluator.logits``.

    Raises:
      UserError: the device has too little memory, or the weights are damaged.
    """
    norm = Normalization(model.spec.normalization_mean, model.spec.normalization_std)
    logits, rate, seconds = run_model(
        model, data.images, norm, batch_size=batch_size, progress=progress
    )
    return Evaluation(
        scores=evaluation.score(logits, data.labels),
        confusion=evaluation.confusion_matrix(logits, data.labels),
        class_names=data.class_names,
        images_per_second=rate,
        compile_seconds=seconds,
    )


def run_model(
    model: Model,
    images: np.ndarray,
    normalization: Normalization | None,
    *,
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[HostLogits, float, float]:
    """Return the logits of all images, images per second, and seconds to compile.

    Args:
      model: network and weights.
      images: in host memory, see ``compile_evaluator``.
      normalization: see ``compile_evaluator``.
      batch_size: images per call.
      progress: see ``Evaluator.logits``.

    Raises:
      UserError: the device has too little memory, or the weights are damaged.
    """
    with devices.memory_advice(f"use a batch_size below {batch_size}"):
        evaluator = evaluation.compile_evaluator(
            model.network,
            model.variables,
            images,
            batch_size=batch_size,
            normalization=normalization,
            for_one_call=len(images) <= batch_size,
        )
        start = time.perf_counter()
        logits = evaluator.logits(model.variables, images, progress=progress)
    seconds = time.perf_counter() - start
    bad = np.flatnonzero(~np.isfinite(logits).all(1))
    if bad.size:
        raise UserError(
            f"the logits of {bad.size} of {len(logits)} images are not finite (first: "
            f"image {bad[0]}); the weights of the model are damaged"
        )
    return logits, len(images) / seconds, evaluator.program.compile_seconds


def _trained_on(spec: ModelSpec) -> Mapping[str, Any]:
    """Return what the provenance says of the data, where it says anything usable."""
    about = spec.provenance.get("data")
    known = {"source": str, "name": str, "image_size": int}
    about = about if isinstance(about, Mapping) else {}
    found = {k: about[k] for k, kind in known.items() if type(about.get(k)) is kind}
    try:
        check_path(found.get("name", "unnamed"))
    except ValueError as error:
        raise UserError(
            f"model.json: the name of its data, {shorten(found['name'])!r}, {error}; "
            "or say --data.source and --data.name"
        ) from None
    return found
