"""Everything that is decided and checked before a search touches a device or a file."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adarts_jax.bilevel.schedules import cosine_learning_rate, warmup_learning_rate
from adarts_jax.config import SearchConfig
from adarts_jax.data import images, splits
from adarts_jax.data.images import ImageData
from adarts_jax.data.splits import SearchSplits
from adarts_jax.engine import determinism, parallel_searches, run_data
from adarts_jax.engine.run_directory import RunDirectory, check_config, check_place
from adarts_jax.engine.search_epoch import Pace
from adarts_jax.errors import UserError
from adarts_jax.networks.stem import choose_stem
from adarts_jax.space import topology

IMAGENET_HALVINGS = 3  # of that stem


@dataclasses.dataclass(frozen=True)
class Start:
    """A search that may begin.

    Attributes:
      data: the training images of all splits, in the order of the training set.
      splits: weight split and architecture split of every search, as indices into the
        training set; each as large as the first.
      statistics: mean and deviation per channel, pixels scaled to [0, 1].
      about: facts for the manifest: seed, and what identifies the data.
      own_statistics: those of every search, float32 (search, 2, channel), where the
        searches differ in their images; else None.
    """

    data: ImageData
    splits: tuple[SearchSplits, ...]
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    about: dict[str, Any]
    own_statistics: np.ndarray | None = None

    @property
    def parts(self) -> SearchSplits:
        """The splits of the first search."""
        return self.splits[0]

    @property
    def used(self) -> np.ndarray:
        """Indices of the images of all splits, ascending."""
        return parallel_searches.union(self.splits)


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
    if config.deterministic:
        determinism.require_determinism()
    run = RunDirectory(place)
    if resume:
        check_config(
            run, config.model_dump(mode="json"), may_differ=run_data.MAY_DIFFER
        )
    places = parallel_searches.places(run, config) if resume else ()
    files = {n: place.splits for n, place in enumerate(places)}
    saved = {n: SearchSplits.load(f) for n, f in files.items() if f.is_file()}
    data, parts = load_images(config, saved)
    about = {"seed": config.seed, "data": run_data.identity(data)}
    if resume:
        run_data.check_same_data(run, about["data"])
    statistics = run_data.channel_statistics(config.data.normalization, data)
    own = parallel_searches.own_statistics(config, data, parts)
    return Start(data, parts, statistics, about, own)


def load_images(
    config: SearchConfig, saved: Mapping[int, SearchSplits]
) -> tuple[ImageData, tuple[SearchSplits, ...]]:
    """Load the images of all splits and check that the network can take them.

    Args:
      config: of the search.
      saved: splits of searches that are continued, by their place in the run; for the
        others the training set is divided.

    Raises:
      UserError: no such data, other data than before, a split smaller than a batch, or
        images too small.
    """
    found: list[SearchSplits] = []

    def select(labels: np.ndarray) -> np.ndarray:
        if len(labels) < 2:  # the source knows best what is missing
            return np.arange(len(labels))
        found[:] = _divide(config, saved, labels)
        return parallel_searches.union(found)

    data = run_data.load_images(config, "train", select=select)
    height, width, _ = data.image_shape
    reductions = len(topology.reduction_cells(config.network.num_cells))
    if choose_stem(config.network.stem, (height, width)) == "imagenet":
        reductions += IMAGENET_HALVINGS
    images.check_image_size(height, width, num_reductions=reductions)
    for parts in found or _divide(config, saved, data.labels):
        for indices, name in (
            (parts.weight_indices, "weight split"),
            (parts.architecture_indices, "architecture split"),
        ):
            images.check_batch(len(indices), config.batch_size, name)
    return data, tuple(found)


def _divide(
    config: SearchConfig, saved: Mapping[int, SearchSplits], labels: np.ndarray
) -> list[SearchSplits]:
    singles = enumerate(parallel_searches.single_configs(config))
    found = [saved.get(n) or make_splits(one, labels) for n, one in singles]
    for parts in found:
        parts.check_size(len(labels))
    return found


def make_splits(config: SearchConfig, labels: np.ndarray) -> SearchSplits:
    """Divide the training set.

    Raises:
      UserError: too few images to divide.
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
        parts = splits.search_splits(
            count,
            weight_fraction=config.data.weight_fraction,
            seed=config.seed if config.data.split == "random" else None,
            limit=_limit(config, count),
        )
    return parts


def _limit(config: SearchConfig, count: int) -> int | None:
    """Return how many training images are used; None for all."""
    limit, fraction = config.data.num_examples, config.data.fraction
    used = limit if fraction is None else int(fraction * count)
    if used is not None and not 2 <= used <= count:
        asked = f"num_examples = {limit}" if limit else f"fraction = {fraction}"
        raise UserError(
            f"data.{asked} means {used} images; choose from 2 to {count}, the size of "
            "the training set"
        )
    return used


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
