"""The images of a run: loaded, measured, and recognised when a run is resumed."""

from collections.abc import Mapping
from typing import Any

from adarts_jax.config import SearchConfig
from adarts_jax.data import augment, images, sources
from adarts_jax.data.images import ImageData, Select
from adarts_jax.engine import manifest
from adarts_jax.engine.run_directory import RunDirectory
from adarts_jax.errors import UserError
from adarts_jax.retrain_config import RetrainConfig

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

# Data may move between two parts of a run; its contents are compared. What happens to
# a loss that is not finite changes nothing before there is one.
MAY_DIFFER = ("data.data_dir", "on_nan")


def load_images(
    config: SearchConfig | RetrainConfig, split: str, *, select: Select | None = None
) -> ImageData:
    """Load a split of the data a config describes.

    Args:
      config: of the run.
      split: name.
      select: see `sources.load`.

    Raises:
      UserError: no such data, or images too small for their augmentation.
    """
    data = sources.load(
        config.data.source,
        split=split,
        data_dir=config.data.data_dir,
        name=config.data.name,
        image_size=config.data.image_size,
        channels=config.data.channels,
        select=select,
    )
    height, width, _ = data.image_shape
    sizes = {"pad": config.data.pad, "cutout_size": config.data.cutout_size}
    for name, size in sizes.items():
        if size > max(height, width):
            raise UserError(
                f"data.{name} = {size} is larger than the images of {height}x{width} "
                "pixels; make it smaller"
            )
    return data


def channel_statistics(normalization: str, data: ImageData) -> Statistics:
    """Return mean and deviation per channel, measured or published.

    Args:
      normalization: "dataset", or a name of `augment.PUBLISHED_STATISTICS`.
      data: training images.

    Raises:
      UserError: the published ones are for another number of channels.
    """
    if normalization == "dataset":
        return augment.channel_statistics(data.images)
    mean, std = augment.PUBLISHED_STATISTICS[normalization]
    channels = data.image_shape[2]
    if channels != len(mean):
        raise UserError(
            f"data.normalization = {normalization} is for {len(mean)} channels, these "
            f"images have {channels}; use data.normalization = dataset"
        )
    return mean, std


def identity(data: ImageData) -> dict[str, Any]:
    """Return what identifies images, for the manifest."""
    return {
        "fingerprint": images.fingerprint(data),
        "num_examples": len(data),
        "image_shape": list(data.image_shape),
        "num_classes": data.num_classes,
    }


def check_same_data(run: RunDirectory, found: Mapping[str, Any]) -> None:
    """Check that a run continues with the images it started with.

    Args:
      run: the run.
      found: identity of the images there are now.

    Raises:
      UserError: they differ.
    """
    saved = (manifest.read(run.manifest) or {}).get("data", found)
    if saved["fingerprint"] != found["fingerprint"]:
        raise UserError(
            f"--resume: the run in {str(run.path)!r} started with other images "
            f"({saved['num_examples']} of {saved['image_shape']}, now "
            f"{found['num_examples']} of {found['image_shape']}, or other contents); "
            "bring them back, or start a new run"
        )
