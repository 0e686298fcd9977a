"""What is decided and checked before a training touches a device or a file."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from adarts_jax.bilevel import schedules
from adarts_jax.data import images, splits
from adarts_jax.data.images import ImageData
from adarts_jax.engine import determinism, run_data
from adarts_jax.engine.retrain_epoch import RetrainPace
from adarts_jax.engine.run_data import Statistics
from adarts_jax.engine.run_directory import RunDirectory, check_config, check_place
from adarts_jax.errors import UserError
from adarts_jax.networks.derived_network import DerivedNetwork, derived_network
from adarts_jax.retrain_config import RetrainConfig
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.published import find_genotype, is_genotype_text


@dataclasses.dataclass(frozen=True)
class Start:
    """A training that may begin.

    Attributes:
      network: derived network that fits the images.
      data: training images, those that are held out included.
      test: test images; None where there are none.
      weight_indices: training images that train the weights.
      held_out_indices: the others; may be empty.
      image_shape: of what the network sees: height, width, channels.
      statistics: mean and deviation per channel, pixels scaled to [0, 1].
      about: facts for the manifest: seed, and what identifies the data.
    """

    network: DerivedNetwork
    data: ImageData
    test: ImageData | None
    weight_indices: np.ndarray
    held_out_indices: np.ndarray
    image_shape: tuple[int, int, int]
    statistics: Statistics
    about: dict[str, Any]


def resolve_genotype(config: RetrainConfig) -> RetrainConfig:
    """Put the text of the genotype in the place of a name or a file.

    The config of a run thus says all, also where the file has moved or changed.

    Raises:
      UserError: no such genotype, or not a valid one.
    """
    text = config.genotype
    is_text = is_genotype_text(text)
    genotype = Genotype.parse(text) if is_text else find_genotype(text)
    return config.model_copy(update={"genotype": genotype.to_text()})


def prepare(
    config: RetrainConfig, place: Path, *, resume: bool, overwrite: bool
) -> Start:
    """Check directory, config and data against each other; nothing is written.

    Args:
      config: of the training, its genotype resolved.
      place: run directory.
      resume: the run there is to be continued.
      overwrite: the run there is to be replaced.

    Raises:
      UserError: whatever does not go together.
    """
    check_place(place, resume=resume, overwrite=overwrite)
    if config.deterministic:
        determinism.require_determinism()
    run = RunDirectory(place)
    if resume:
        saved = config.model_dump(mode="json")
        check_config(run, saved, may_differ=run_data.MAY_DIFFER)
    data = run_data.load_images(config, "train")
    test = load_test(config, data)
    height, width, channels = data.image_shape
    side = config.data.crop_size
    image_shape = (side or height, side or width, channels)
    _check_crop(config, data)
    network = make_network(config, data.num_classes, image_shape)
    about = {"seed": config.seed, "data": run_data.identity(data)}
    if test is not None:
        about["test_data"] = run_data.identity(test)
    if resume:
        run_data.check_same_data(run, about["data"])
    weight_indices, held_out_indices = splits.hold_out(
        len(data),
        fraction=config.data.held_out_fraction,
        seed=config.data.held_out_seed,
        limit=config.data.num_examples,
    )
    what = "training set" if not len(held_out_indices) else "weight split"
    images.check_batch(len(weight_indices), config.batch_size, what)
    return Start(
        network,
        data,
        test,
        weight_indices,
        held_out_indices,
        image_shape,
        run_data.channel_statistics(config.data.normalization, data),
        about,
    )


def load_test(config: RetrainConfig, data: ImageData) -> ImageData | None:
    """Load the test images.

    Args:
      config: of the training.
      data: training images.

    Raises:
      UserError: no such split, or it does not go with the training images.
    """
    split = config.data.test_split
    if split is None:
        return None
    test = run_data.load_images(config, split)
    if test.class_names != data.class_names:
        raise UserError(
            f"the test images ({split!r}) have {test.num_classes} classes, the "
            f"training images {data.num_classes}, or other names; use data of the same "
            "classes, or data.test_split = none"
        )
    if test.image_shape != data.image_shape:
        raise UserError(
            f"the test images ({split!r}) are {_shown(test)}, the training images "
            f"{_shown(data)}; set data.image_size"
        )
    return test


def make_network(
    config: RetrainConfig, num_classes: int, image_shape: tuple[int, int, int]
) -> DerivedNetwork:
    """Build the network and check that it fits the images.

    Raises:
      UserError: it does not.
    """
    wanted = config.network.num_classes
    if wanted not in (None, num_classes):
        raise UserError(
            f"network.num_classes = {wanted}, but the data has {num_classes} classes; "
            "leave it out, or use other data"
        )
    is_half = config.network.precision == "bfloat16"
    return derived_network(
        Genotype.parse(config.genotype),
        image_size=image_shape[:2],
        init_channels=config.network.init_channels,
        num_cells=config.network.num_cells,
        num_classes=num_classes,
        stem=config.network.stem,
        auxiliary=config.network.auxiliary,
        dtype=jnp.bfloat16 if is_half else jnp.float32,
        remat=config.network.remat,
    )


def epoch_pace(config: RetrainConfig, number: int) -> RetrainPace:
    """Return learning rate and drop-path rate of an epoch, in host memory.

    Drop path rises in a line from 0: ``rate * number / epochs`` (methods.md 6.1).
    """
    rate = config.network.drop_path_rate * number / config.epochs
    return RetrainPace(
        learning_rate=np.float32(learning_rate(config, number)),
        drop_path_rate=np.float32(rate),
    )


def learning_rate(config: RetrainConfig, number: int) -> float:
    """Return the learning rate of an epoch."""
    base = config.weights.learning_rate
    epochs = config.weights.schedule_epochs or config.epochs
    warmup = config.weights.warmup_epochs
    if number < warmup:
        return schedules.warmup_learning_rate(number, base=base, warmup_epochs=warmup)
    if config.weights.schedule == "exponential":
        decay = config.weights.decay
        return schedules.exponential_learning_rate(number, base=base, decay=decay)
    if config.weights.schedule == "linear":
        return schedules.linear_learning_rate(number, base=base, epochs=epochs)
    minimum = config.weights.min_learning_rate
    return schedules.cosine_learning_rate(
        number, base=base, minimum=minimum, epochs=epochs
    )


def _check_crop(config: RetrainConfig, data: ImageData) -> None:
    height, width, channels = data.image_shape
    if config.data.crop_size > min(height, width):
        raise UserError(
            f"data.crop_size = {config.data.crop_size} is larger than the images of "
            f"{height}x{width}; set data.image_size to it or more"
        )
    if any(config.data.color_jitter) and channels != 3:
        raise UserError(
            f"data.color_jitter is for images of 3 channels, these have {channels}; "
            "leave it out, or set data.channels = 3"
        )


def _shown(data: ImageData) -> str:
    return "x".join(map(str, data.image_shape))
