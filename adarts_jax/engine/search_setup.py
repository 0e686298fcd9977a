"""Everything that is decided and checked before a search touches a device or a file."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from adarts_jax.bilevel.schedules import cosine_learning_rate, warmup_learning_rate
from adarts_jax.config import SearchConfig
from adarts_jax.data import images, splits
from adarts_jax.data.images import ImageData
from adarts_jax.data.splits import SearchSplits
from adarts_jax.engine import parallel_searches, run_data
from adarts_jax.engine.run_directory import RunDirectory, check_config, check_place
from adarts_jax.engine.search_epoch import Pace
from adarts_jax.networks.stem import choose_stem
from adarts_jax.space import topology

IMAGENET_HALVINGS = 3  # of that stem


@dataclasses.dataclass(frozen=True)
class Start:
    """A search that may begin.

    Attributes:
      data: training images.
      splits: weight split and architecture split, those of every search of the run.
      statistics: mean and deviation per channel, pixels scaled to [0, 1].
      about: facts for the manifest: seed, and what identifies the data.
    """

    data: ImageData
    splits: tuple[SearchSplits, ...]
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    about: dict[str, Any]

    @property
    def parts(self) -> SearchSplits:
        """The splits of the first search; those of the others are as large."""
        return self.splits[0]


def prepare(
    config: SearchConfig, place: Path, *, resume: bool, overwrite: bool
) -> Start:
    """Check directory, config and data against each other; nothing is written.

    Args:
      config: of the search.
      place: run directory.
      resume: the run there is to be continued.
      overwrite: the run there is to be replaced.

    Returns:
      Images and splits.

    Raises:
      UserError: whatever does not go together.
    """
    check_place(place, resume=resume, overwrite=overwrite)
    run = RunDirectory(place)
    if resume:
        check_config(
            run, config.model_dump(mode="json"), may_differ=run_data.MAY_DIFFER
        )
    data = load_images(config)
    about = {"seed": config.seed, "data": run_data.identity(data)}
    if resume:
        run_data.check_same_data(run, about["data"])
        places = parallel_searches.places(run, config)
        parts = tuple(SearchSplits.load(place.splits) for place in places)
    else:
        singles = parallel_searches.single_configs(config)
        parts = tuple(make_splits(single, data.labels) for single in singles)
    statistics = run_data.channel_statistics(config.data.normalization, data)
    return Start(data, parts, statistics, about)


def load_images(config: SearchConfig) -> ImageData:
    """Load the training images and check that the network can take them.

    Raises:
      UserError: no such data, or images too small.
    """
    data = run_data.load_images(config, "train")
    height, width, _ = data.image_shape
    reductions = len(topology.reduction_cells(config.network.num_cells))
    if choose_stem(config.network.stem, (height, width)) == "imagenet":
        reductions += IMAGENET_HALVINGS
    images.check_image_size(height, width, num_reductions=reductions)
    return data


def make_splits(config: SearchConfig, labels: np.ndarray) -> SearchSplits:
    """Divide the training set.

    Raises:
      UserError: a split is smaller than a batch.
    """
    count, fraction = len(labels), config.data.fraction
    if config.data.split == "balanced":
        parts = splits.balanced_splits(
            labels,
            weight_fraction=config.data.weight_fraction,
            fraction=fraction or (config.data.num_examples or count) / count,
            seed=config.seed,
        )
    else:
        limit = config.data.num_examples
        parts = splits.search_splits(
            count,
            weight_fraction=config.data.weight_fraction,
            seed=config.seed if config.data.split == "random" else None,
            limit=limit if fraction is None else int(fraction * count),
        )
    size = config.batch_size
    images.check_batch(len(parts.weight_indices), size, "weight split")
    images.check_batch(len(parts.architecture_indices), size, "architecture split")
    return parts


def epoch_pace(config: SearchConfig, number: int) -> Pace:
    """Return learning rates and whether the architecture moves, in host memory."""
    rate = cosine_learning_rate(
        number,
        base=config.weights.learning_rate,
        minimum=config.weights.min_learning_rate,
        epochs=config.epochs,
        shifted=config.compat.lr_index == "next_epoch",
    )
    if number < config.weights.warmup_epochs:
        rate = warmup_learning_rate(
            number,
            base=config.weights.learning_rate,
            warmup_epochs=config.weights.warmup_epochs,
        )
    return Pace(
        weight_learning_rate=np.float32(rate),
        architecture_learning_rate=np.float32(config.architecture.learning_rate),
        update_architecture=np.bool_(number >= config.warmup_epochs),
    )


def memory_advice(config: SearchConfig) -> str:
    """Return what makes a search smaller, with the values now."""
    fewer = f"num_searches (now {config.num_searches}), "
    return (
        f"make {fewer if config.num_searches > 1 else ''}batch_size (now "
        f"{config.batch_size}) or network.init_channels (now "
        f"{config.network.init_channels}) smaller"
    )
