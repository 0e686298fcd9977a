"""Draw every picture of a run into its directory."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adarts_jax.errors import UserError
from adarts_jax.report import alpha_heat_map, cell_picture, learning_curves
from adarts_jax.report.run_files import RunFiles, read_run
from adarts_jax.space import topology
from adarts_jax.space.genotype import MAX_NODES
from adarts_jax.space.topology import CELL_TYPES

CELL_NAMES = {"normal": "normal", "reduce": "reduction"}
WEIGHTS_FILE = "architecture.npz"

_REPAIR = "restore it from a copy, or remove it"
_DAMAGE = (
    *(OSError, ValueError, EOFError, MemoryError, KeyError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)


class Picture(NamedTuple):
    """A picture that was drawn.

    Attributes:
      title: what it shows.
      stem: path without the suffix ``.svg`` or ``.png``.
    """

    title: str
    stem: Path


def draw_run(
    run_directory: str | Path,
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    primitives: Sequence[str] = (),
) -> list[Picture]:
    """Draw everything a run directory has the data for; old pictures are replaced.

    ``cells/normal`` and ``cells/reduction`` from the genotype, ``cells/normal_weights``
    and ``cells/reduction_weights`` from the architecture weights, and
    ``learning_curves`` from the metrics, each as ``.svg`` and ``.png``.

    Args:
      run_directory: the ``--out`` of a run, finished or not.
      weights: the keys ``op_weights_normal`` and ``op_weights_reduce`` hold (edge, op)
        softmaxes of alpha, ``edge_weights_normal`` and ``edge_weights_reduce`` the
        (edge,) softmaxes of beta; all optional. None reads ``architecture.npz``, which
        has the same keys and ``primitives``, if the run wrote one.
      primitives: names of the operations; not needed with ``architecture.npz``.

    Returns:
      The pictures drawn, in the order in which a report shows them.

    Raises:
      UserError: not a run directory, or a damaged file in it.
    """
    return draw_pictures(
        read_run(run_directory), weights=weights, primitives=primitives
    )


def draw_pictures(
    run: RunFiles,
    *,
    weights: Mapping[str, Any] | None = None,
    primitives: Sequence[str] = (),
) -> list[Picture]:
    """Draw the pictures of a run that has been read; see `draw_run`."""
    cells, curves = run.directory / "cells", run.directory / "learning_curves"
    pictures = []
    if weights is None and (run.directory / WEIGHTS_FILE).is_file():
        weights = _read_weights(run.directory / WEIGHTS_FILE)
        primitives = [str(name) for name in weights["primitives"]]
    if run.genotype is not None:
        cell_picture.draw_genotype(run.genotype, cells)
        pictures += [
            Picture(f"{name.capitalize()} cell", cells / name)
            for name in CELL_NAMES.values()
        ]
    pictures += _draw_weights(cells, weights or {}, primitives)
    if learning_curves.draw_learning_curves(
        run.records, curves, warmup_epochs=run.warmup_epochs
    ):
        pictures.append(Picture("Learning curves", curves))
    return pictures


def _draw_weights(
    folder: Path, weights: Mapping[str, np.ndarray], primitives: Sequence[str]
) -> list[Picture]:
    """Draw the heat maps of the cell types that have weights."""
    pictures = []
    for cell_type in CELL_TYPES:
        if f"op_weights_{cell_type}" in weights:
            name = CELL_NAMES[cell_type]
            picture = Picture(
                f"{name.capitalize()} cell, operation weights",
                folder / f"{name}_weights",
            )
            alpha_heat_map.draw_alpha_heat_map(
                np.asarray(weights[f"op_weights_{cell_type}"]),
                primitives,
                picture.stem,
                picture.title,
                edge_weights=weights.get(f"edge_weights_{cell_type}"),
            )
            pictures.append(picture)
    return pictures


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` without unpickling anything."""
    try:
        with np.load(path, allow_pickle=False) as file:
            weights = dict(file)
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is not a file of plain arrays: {reason}; {_REPAIR}"
        ) from None
    if wrong := _problem(weights):
        raise UserError(f"{path} {wrong}; {_REPAIR}")
    return weights


def _problem(weights: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the arrays of a file, None if nothing is."""
    names = weights.get("primitives")
    if not isinstance(names, np.ndarray) or names.ndim != 1 or names.dtype.kind != "U":
        return "does not name the primitives of its columns"
    edges = {topology.num_edges(nodes) for nodes in range(1, MAX_NODES + 1)}
    for cell_type in CELL_TYPES:
        ops = weights.get(f"op_weights_{cell_type}")
        if ops is None:
            continue
        each = weights.get(f"edge_weights_{cell_type}", np.zeros(len(ops)))
        rows, columns = ops.shape if ops.ndim == 2 else (0, 0)
        if rows not in edges or columns != len(names) or each.shape != (rows,):
            return f"has {cell_type} weights of shape {ops.shape} and {each.shape}"
        if not all(a.dtype.kind == "f" and np.isfinite(a).all() for a in (ops, each)):
            return f"has {cell_type} weights that are not finite"
    return None
