"""From a ``.pt`` file to a model, and back: what the program ``convert`` does."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from adarts_jax import torch_weights
from adarts_jax.data import augment
from adarts_jax.engine import files
from adarts_jax.errors import UserError, shorten
from adarts_jax.model_directory import SPEC_FILE, Model
from adarts_jax.model_spec import ModelSpec
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.published import PUBLISHED
from adarts_jax.torch_weights.inference import (
    NetworkSize,
    fitting_genotypes,
    infer_size,
    revealed_operations,
)
from adarts_jax.torch_weights.layouts import StateDictMismatchError
from adarts_jax.torch_weights.writer import write_state_dict

_USUAL_SIDE = {"cifar": 32, "imagenet": 224}
_USUAL_STATISTICS = {"cifar": "cifar10", "imagenet": "imagenet"}
_COUNTER = "num_batches_tracked"

StateDict = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Images:
    """What a state dict does not tell about the images; None for the usual.

    Attributes:
      side: height and width, pixels.
      mean: per channel, of pixels scaled to [0, 1].
      std: per channel, of pixels scaled to [0, 1].
      class_names: one per output; numbers if None.
    """

    side: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None


def choose_genotype(state_dict: StateDict) -> str:
    """Return the name of the one published genotype that a state dict fits.

    Raises:
      UserError: none or several do; says what the state dict reveals.
    """
    size = infer_size(state_dict)
    fitting = fitting_genotypes(state_dict, size, PUBLISHED)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(
            f"published genotypes {', '.join(fitting)} fit equally well; choose one "
            "with --genotype"
        )
    raise UserError(
        "no published genotype fits; give --genotype NAME_OR_FILE. Operations with "
        f"weights are {revealed_operations(state_dict, size.num_cells)}"
    )


def build_model(
    state_dict: StateDict, genotype: Genotype, images: Images, *, source: Path
) -> Model:
    """Convert the state dict of a PyTorch derived network.

    Args:
      state_dict: arrays by PyTorch name.
      genotype: both cells.
      images: what the network is for.
      source: where the state dict comes from; its name and digest go into the
        provenance.

    Raises:
      UserError: the state dict is not that of a derived network of this genotype, or
        ``images`` do not go with it.
    """
    size = infer_size(state_dict)
    if wrong := [shorten(k) for k, x in state_dict.items() if not np.isfinite(x).all()]:
        raise UserError(
            f"{str(source)!r} has weights that are not finite "
            f"({', '.join(wrong[:5])}); use a checkpoint from before that"
        )
    spec = _make_spec(size, genotype, images, _provenance(state_dict, source))
    try:
        variables = torch_weights.derived_variables(
            state_dict, spec.make_network(), image_size=spec.image_size
        )
    except StateDictMismatchError as error:
        fitting = fitting_genotypes(state_dict, size, PUBLISHED)
        raise StateDictMismatchError(
            error.table,
            reason=f"the state dict ({_describe(size)}) is not that of this genotype",
            way_out=f"published genotypes that fit: {', '.join(fitting) or 'none'}",
        ) from None
    return Model(spec.make_network(), jax.tree.map(jnp.asarray, variables), spec)


def check_model_place(directory: Path, *, overwrite: bool) -> None:
    """Check that a model may be written to a directory.

    Raises:
      UserError: it holds a model already, or is no directory.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"out={str(directory)!r} is a file; choose a directory")
    if (directory / SPEC_FILE).exists() and not overwrite:
        raise UserError(
            f"{str(directory)!r} holds a model already; choose another directory, or "
            "--overwrite"
        )


def check_file_place(path: Path, *, overwrite: bool) -> None:
    """Check that a ``.pt`` file may be written.

    Raises:
      UserError: it exists, or there is no folder for it.
    """
    if path.is_dir() or (path.exists() and not overwrite):
        raise UserError(f"{str(path)!r} exists; choose another file, or --overwrite")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {str(path.parent)!r} to write to; make it")


def write_torch(model: Model, path: Path) -> None:
    """Write a model as the ``.pt`` file of the original programs.

    Raises:
      UserError: PyTorch is missing or too old, or the file cannot be written.
    """
    tensors = torch_weights.derived_state_dict(model.variables, model.network)
    counter = model.spec.provenance.get(_COUNTER, 0)
    counter = counter if isinstance(counter, int) else 0
    try:
        files.replace(
            path, lambda p: write_state_dict(p, tensors, num_batches_tracked=counter)
        )
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot write {str(path)!r}: {error}") from error


def _make_spec(
    size: NetworkSize, genotype: Genotype, images: Images, provenance: dict
) -> ModelSpec:
    mean, std = augment.PUBLISHED_STATISTICS[_USUAL_STATISTICS[size.stem]]
    mean, std = images.mean or mean, images.std or std
    side = images.side or _USUAL_SIDE[size.stem]
    names = images.class_names or tuple(map(str, range(size.num_classes)))
    return ModelSpec(
        genotype=genotype,
        init_channels=size.init_channels,
        num_cells=size.num_cells,
        num_classes=size.num_classes,
        stem=size.stem,
        auxiliary=size.auxiliary,
        image_size=(side, side),
        image_channels=size.image_channels,
        normalization_mean=mean,
        normalization_std=std,
        class_names=names,
        provenance=provenance,
    )


def _provenance(state_dict: StateDict, source: Path) -> dict:
    """Name the file and its content; keep the counter if all norms agree on it."""
    about = {
        "converted_from": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    counts = {int(v) for k, v in state_dict.items() if k.endswith(_COUNTER)}
    return about if len(counts) != 1 else {**about, _COUNTER: counts.pop()}


def _describe(size: NetworkSize) -> str:
    head = "with" if size.auxiliary else "without"
    return (
        f"{size.stem} stem, init_channels={size.init_channels}, "
        f"num_cells={size.num_cells}, num_classes={size.num_classes}, {head} "
        "auxiliary head"
    )
