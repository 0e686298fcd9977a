"""One conversion from file to file: check, convert, write, compare."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adarts_jax.data.augment import normalize
from adarts_jax.engine import conversion, files, verification
from adarts_jax.engine.console import Console
from adarts_jax.engine.model_evaluation import load_images
from adarts_jax.engine.verification import Verification
from adarts_jax.errors import UserError
from adarts_jax.model_directory import Model, load_model, save_model
from adarts_jax.model_options import ConvertOptions, FromTorchOptions, ToTorchOptions
from adarts_jax.model_spec import ModelSpec
from adarts_jax.space.published import find_genotype
from adarts_jax.torch_weights.layouts import StateDictMismatchError
from adarts_jax.torch_weights.reader import read_state_dict


def from_torch(options: FromTorchOptions) -> dict[str, Any]:
    """Convert a ``.pt`` file to a model directory.

    Returns:
      What was written and, with ``verify``, how it compares, under "verification".

    Raises:
      UserError: anything about the file, the genotype or the place that is amiss.
    """
    out, file = Path(options.out), Path(options.file)
    conversion.check_model_place(out, overwrite=options.overwrite)
    state_dict = read_state_dict(file)
    images = conversion.Images(
        options.image_size, options.mean, options.std, options.class_names
    )
    name = options.genotype
    try:
        if name is None:
            name = conversion.choose_genotype(state_dict)
            Console().say(f"genotype {name}: the only published one that fits")
        model = conversion.build_model(
            state_dict, find_genotype(name), images, source=file
        )
    except StateDictMismatchError as error:
        raise _with_table(error, options.table) from None
    shown = _images_to_show(options, model.spec)
    save_model(out, model.spec, model.variables)
    return {
        "model": options.out,
        "genotype": name,
        **_size(model),
        **_verified(model, state_dict, shown),
    }


def to_torch(options: ToTorchOptions) -> dict[str, Any]:
    """Write a model as a ``.pt`` file.

    Returns:
      As `from_torch`.

    Raises:
      UserError: anything about the model or the place that is amiss.
    """
    out = Path(options.out)
    conversion.check_file_place(out, overwrite=options.overwrite)
    model = load_model(options.model_dir)
    shown = _images_to_show(options, model.spec)
    conversion.write_torch(model, out)
    verified = {} if shown is None else _verified(model, read_state_dict(out), shown)
    return {"file": options.out, **_size(model), **verified}


def _with_table(error: StateDictMismatchError, table: str | None) -> UserError:
    """Write the whole table where it is wanted, else say how to get it."""
    if table is None:
        return UserError(f"{error}; --table FILE writes all {len(error.table)} entries")
    rows = [("what", "entry", "shape found", "shape expected"), *error.table]
    try:
        files.write_text(Path(table), "".join("\t".join(row) + "\n" for row in rows))
    except OSError as problem:
        return UserError(f"{error}; cannot write the table: {problem}")
    return UserError(f"{error}; all {len(error.table)} entries are in {table!r}")


def _images_to_show(options: ConvertOptions, spec: ModelSpec) -> np.ndarray | None:
    """Return normalised images for the comparison, None where none is wanted."""
    if not options.verify:
        return None
    verification.check_reference(spec)
    count = options.num_images
    if options.data.source is None:
        return verification.random_images(spec, count)
    data = load_images(spec, split=options.split, **options.data.model_dump())
    mean, std = spec.normalization_mean, spec.normalization_std
    return np.asarray(normalize(jnp.asarray(data.images[:count]), mean, std))


def _verified(
    model: Model, state_dict: Mapping[str, np.ndarray], images: np.ndarray | None
) -> dict[str, Verification]:
    if images is None:
        return {}
    return {"verification": verification.verify(model, state_dict, images)}


def _size(model: Model) -> dict[str, Any]:
    """Return what the network is, in numbers; the auxiliary head is not counted."""
    spec, params = model.spec, model.variables["params"]
    own = {name: part for name, part in params.items() if name != "auxiliary"}
    return {
        "stem": spec.stem,
        "init_channels": spec.init_channels,
        "num_cells": spec.num_cells,
        "num_classes": spec.num_classes,
        "auxiliary": spec.auxiliary,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(own)),
    }
