"""Draw which classes a model takes for which."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from adarts_jax.report import figures

# Beyond these numbers of classes, counts and names would be too small to read.
MOST_COUNTS: Final = 20
MOST_NAMES: Final = 50
LONGEST_NAME: Final = 24

_COLOUR_MAP: Final = "Blues"
_DARK: Final = 0.55  # from this share on, numbers are white


def draw_confusion(
    confusion: NDArray[np.integer],
    class_names: Sequence[str],
    path_stem: str | Path,
) -> None:
    """Write the confusion matrix as ``<path_stem>.svg`` and ``.png``.

    Colours are shares of the images of a label; the numbers are counts.

    Args:
      confusion: images by label (row) and predicted class (column).
      class_names: one per class.
      path_stem: path without suffix; missing folders are made.
    """
    totals = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    classes = len(class_names)
    with figures.picture_style():
        side = 3.2 + 0.42 * min(classes, MOST_COUNTS)  # inches
        figure = Figure(figsize=(side + 0.8, side))
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        axes.grid(visible=False)
        image = axes.imshow(shares, cmap=_COLOUR_MAP, vmin=0, vmax=1)
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        axes.set_xlabel("predicted class")
        axes.set_ylabel("label")
        right = int(np.trace(confusion))
        axes.set_title(f"{right} of {int(totals.sum())} right")
        if classes <= MOST_NAMES:
            _name_axes(axes, class_names)
        if classes <= MOST_COUNTS:
            _write_counts(axes, confusion, shares)
        figures.save_picture(figure, path_stem)


def _name_axes(axes: Axes, class_names: Sequence[str]) -> None:
    shown = list(map(_shown, class_names))
    places = range(len(shown))
    axes.set_xticks(places, shown, rotation=90, fontsize=8)
    axes.set_yticks(places, shown, fontsize=8)


def _shown(name: str) -> str:
    """Return a name that fits and that fonts and XML can bear."""
    cut = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return "".join(c if c.isprintable() else "?" for c in cut)


def _write_counts(
    axes: Axes, confusion: NDArray[np.integer], shares: NDArray[np.floating]
) -> None:
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if shares[row, column] >= _DARK else figures.INK
            axes.text(
                column, row, str(count), ha="center", va="center", color=colour, size=7
            )
