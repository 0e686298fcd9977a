"""Draw how much weight the search gives each operation on each edge of a cell.

Takes weights that are normalised already, as NumPy arrays; computes no softmax.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from adarts_jax.errors import UserError
from adarts_jax.report import figures
from adarts_jax.report.notation import INPUT_NAMES
from adarts_jax.space import topology

_SQUARE: Final = (0.6, 0.3)  # inches
_LEFT: Final = 1.0
_RIGHT: Final = 0.65  # the last of the slanted names leans out
_TOP: Final = 1.55
_BOTTOM: Final = 0.25
_GAP: Final = 0.4  # squares between the operations and the edge weights
_OPERATIONS: Final = (0.169, 0.424, 0.690)
_EDGES: Final = (0.753, 0.337, 0.129)


def edge_names(num_nodes: int) -> list[str]:
    """Return "source → target" of every edge, as the cell pictures name the states.

    >>> edge_names(1)
    ['cₖ₋₂ → 0', 'cₖ₋₁ → 0']
    """
    names = [*INPUT_NAMES, *map(str, range(num_nodes))]
    return [f"{names[s]} → {names[t]}" for s, t in topology.edge_sources(num_nodes)]


def draw_alpha_heat_map(
    op_weights: Float[np.ndarray, "edge op"],
    primitives: Sequence[str],
    path_stem: str | Path,
    title: str,
    *,
    edge_weights: Float[np.ndarray, " edge"] | None = None,
) -> None:
    """Write the heat map of one cell type as ``<path_stem>.svg`` and ``.png``.

    A frame marks the strongest operation of each edge other than ``none``: the one
    that discretization keeps if it keeps the edge. Gaps separate the target nodes.

    Args:
      op_weights: softmax of alpha, rows in the edge order of ``space.topology``.
      primitives: name of every column.
      path_stem: path without suffix; missing folders are made.
      title: heading of the picture.
      edge_weights: softmax of beta over the edges into each node, or None.

    Raises:
      UserError: the shapes do not fit each other.
      ValueError: no cell has that many edges.
    """
    num_edges, num_ops = op_weights.shape
    if num_ops != len(primitives):
        raise UserError(f"{num_ops} columns of weights for {len(primitives)} names")
    if edge_weights is not None and edge_weights.shape != (num_edges,):
        raise UserError(f"edge weights {edge_weights.shape} for {num_edges} edges")
    names = edge_names(topology.num_nodes(num_edges))
    with figures.picture_style():
        num_columns = num_ops if edge_weights is None else num_ops + _GAP + 1
        figure, axes = _paper(num_columns, len(names), title)
        # an undecided edge (all weights 1 / num_ops) should not look decided
        darkest = max(float(op_weights.max()), 3 / num_ops)
        _draw_columns(axes, op_weights, primitives, 0.0, _OPERATIONS, darkest)
        _frame_strongest(axes, op_weights, primitives)
        if edge_weights is not None:
            weights = edge_weights[:, None]
            _draw_columns(axes, weights, ["edge weight"], num_ops + _GAP, _EDGES, 1.0)
        for row, name in enumerate(names):
            axes.text(-0.2, _row_place(row), name, ha="right", va="center")
        figures.save_picture(figure, path_stem)


def _row_place(edge: int) -> float:
    """Return the centre of an edge's row in squares; target nodes stand apart."""
    target = topology.edge_sources(edge + 1)[edge][1]
    return edge + 0.5 + 0.3 * (target - topology.NUM_INPUTS)


def _paper(columns: float, rows: int, title: str) -> tuple[Figure, Axes]:
    """Return axes in squares that grow downwards, with margins for the names."""
    lowest = _row_place(rows - 1) + 0.5
    width = _LEFT + columns * _SQUARE[0] + _RIGHT
    height = _TOP + lowest * _SQUARE[1] + _BOTTOM
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    left, right = -_LEFT / _SQUARE[0], columns + _RIGHT / _SQUARE[0]
    top, bottom = -_TOP / _SQUARE[1], lowest + _BOTTOM / _SQUARE[1]
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.axis("off")
    figure.text(
        0.25 / width, 1 - 0.3 / height, title, size=12, weight="bold", va="center"
    )
    return figure, axes


def _draw_columns(
    axes: Axes,
    weights: Float[np.ndarray, "edge column"],
    names: Sequence[str],
    left: float,
    colour: tuple[float, float, float],
    darkest: float,
) -> None:
    """Draw squares from white to a colour, the darkest weight full, with numbers."""
    for edge, row in enumerate(weights):
        for column, weight in enumerate(row):
            share = min(float(weight) / darkest, 1.0)
            fill = tuple(1 - share * (1 - channel) for channel in colour)
            corner = (left + column, _row_place(edge) - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fc=fill, ec="white", lw=1.0))
            ink = "white" if share > 0.62 else figures.INK
            place = (left + column + 0.5, _row_place(edge))
            number = f"{weight:.3f}".removeprefix("0")
            axes.text(*place, number, size=8, ha="center", va="center", color=ink)
    for column, name in enumerate(names):
        place = (left + column + 0.35, -0.35)
        axes.text(*place, name, rotation=40, rotation_mode="anchor", va="bottom")


def _frame_strongest(
    axes: Axes, op_weights: Float[np.ndarray, "edge op"], primitives: Sequence[str]
) -> None:
    """Frame the strongest operation of every edge; ``none`` cannot win."""
    eligible = [name != "none" for name in primitives]
    strongest = np.where(eligible, op_weights, -np.inf).argmax(axis=1)
    for edge, column in enumerate(strongest):
        corner = (int(column) + 0.04, _row_place(edge) - 0.46)
        axes.add_patch(
            Rectangle(corner, 0.92, 0.92, fill=False, ec=figures.INK, lw=1.4)
        )
