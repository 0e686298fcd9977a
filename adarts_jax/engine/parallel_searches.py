"""Several searches side by side in one program: an axis ``search`` more.

What is a search's own (state, key, splits, order) is stacked along that axis in front;
images and learning rates are shared. A single search has no such axis, so everything
here leaves it as it is.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from adarts_jax.config import SearchConfig
from adarts_jax.data import augment
from adarts_jax.data.images import ImageData
from adarts_jax.data.splits import SearchSplits
from adarts_jax.engine.run_directory import RunDirectory
from adarts_jax.engine.search_epoch import SearchData

AXIS = "search"
# Which parts of the data are a search's own: 0, the axis in front.
OWN_DATA = SearchData(
    images=None,
    labels=None,
    weight_indices=0,
    architecture_indices=0,
    key=0,
    seed=0,
    statistics=0,
)


def single_configs(config: SearchConfig) -> tuple[SearchConfig, ...]:
    """Return the config with which each search would be a run of its own."""
    if config.num_searches == 1:
        return (config,)
    return tuple(
        config.model_copy(update={"seed": config.seed + n, "num_searches": 1})
        for n in range(config.num_searches)
    )


def places(run: RunDirectory, config: SearchConfig) -> tuple[RunDirectory, ...]:
    """Return the directory of each search; a single one has that of the run."""
    if config.num_searches == 1:
        return (run,)
    return tuple(run.search(single.seed) for single in single_configs(config))


def names(config: SearchConfig) -> tuple[str, ...]:
    """Return how each search is told from the others in a message."""
    if config.num_searches == 1:
        return ("",)
    singles = single_configs(config)
    return tuple(f" in the search with seed {single.seed}" for single in singles)


def root_key(config: SearchConfig) -> PRNGKeyArray:
    """Return the root of the random numbers, (search,) where there are several."""
    return stack([jax.random.key(s.seed) for s in single_configs(config)])


def own_seeds(config: SearchConfig) -> np.ndarray | None:
    """Return seeds, uint32 (search,); None for a single search, whose is static."""
    if config.num_searches == 1:
        return None
    return np.array([single.seed for single in single_configs(config)], np.uint32)


def union(splits: Sequence[SearchSplits]) -> np.ndarray:
    """Return the indices of the images of all splits, ascending."""
    return functools.reduce(np.union1d, [parts.used for parts in splits])


def own_statistics(
    config: SearchConfig, data: ImageData, splits: Sequence[SearchSplits]
) -> np.ndarray | None:
    """Return mean and deviation of every search, where searches differ in images.

    Args:
      config: of the run.
      data: the images of all splits.
      splits: of every search.

    Returns:
      float32 (search, 2, channel); None where all searches have the same.
    """
    used = union(splits)
    is_same = all(len(parts.used) == len(used) for parts in splits)
    if is_same or config.data.normalization != "dataset":
        return None
    own = [data.images[np.searchsorted(used, parts.used)] for parts in splits]
    return np.array([augment.channel_statistics(images) for images in own], np.float32)


def vectorize(
    function: Callable[..., Any], in_axes: Any, num_searches: int
) -> Callable[..., Any]:
    """Return a function of one search as one of all of them.

    Args:
      function: takes and returns what belongs to one search.
      in_axes: 0 for what is a search's own, None for what is shared.
      num_searches: how many.
    """
    if num_searches == 1:
        return function
    return jax.vmap(function, in_axes, axis_name=AXIS)


def stack(values: Sequence[Any]) -> Any:
    """Stack one array per search along the new axis."""
    return values[0] if len(values) == 1 else jnp.stack(values)


def split(tree: PyTree, num_searches: int) -> list[PyTree]:
    """Return what belongs to each search, of several in host memory."""
    if num_searches == 1:
        return [tree]
    host = jax.device_get(tree)
    return [jax.tree.map(lambda x, n=n: x[n], host) for n in range(num_searches)]
