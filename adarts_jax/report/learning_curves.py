"""Draw the course of a search or a training run over its epochs.

Draws only; what the quantities mean is decided where they are written.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from adarts_jax.report import figures
from adarts_jax.report.metrics_file import Record, epoch_series


class Panel(NamedTuple):
    """One diagram: every quantity whose key contains one of the words.

    Attributes:
      title: heading, with the unit.
      words: parts of keys.
      is_share: the values are in [0, 1] and shown in percent.
      is_logarithmic: the quantities differ by orders of magnitude.
    """

    title: str
    words: tuple[str, ...]
    is_share: bool = False
    is_logarithmic: bool = False


PANELS: Final = (
    Panel("Loss (nats)", ("loss",)),
    Panel("Accuracy", ("accuracy", "top1"), is_share=True),
    Panel("Entropy of the operation weights (nats)", ("/entropy",)),
    Panel("Entropy of the edge weights (nats)", ("edge_entropy",)),
    Panel("Share of operations", ("genotype/", "none_edges"), is_share=True),
    Panel("Norm of the gradient", ("gradient_norm",), is_logarithmic=True),
)

_PANEL_SIZE: Final = (5.6, 3.5)  # inches
_COLOURS: Final = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#4a5568")
_WARMUP: Final = "#f1ebda"
_FEW_EPOCHS: Final = 20  # so few get markers; a single epoch would be invisible


def draw_learning_curves(
    records: Sequence[Record],
    path_stem: str | Path,
    *,
    warmup_epochs: int = 0,
) -> list[str]:
    """Write the curves over the epochs as ``<path_stem>.svg`` and ``.png``.

    Quantities that no record has are left out, and so are panels without quantities.
    A value that is null or not finite leaves a gap. Records of the same epoch are
    merged, the later one wins; records without an epoch are passed over.

    Args:
      records: what `read_metrics` returns.
      path_stem: path without suffix; missing folders are made.
      warmup_epochs: epochs in which only the weights are trained, shaded.

    Returns:
      The titles of the panels drawn; nothing is written when there are none.
    """
    epochs, series = epoch_series(records)
    chosen = [(panel, select_keys(panel, series)) for panel in PANELS]
    chosen = [(panel, keys) for panel, keys in chosen if keys]
    if not chosen:
        return []
    with figures.picture_style():
        rows = math.ceil(len(chosen) / 2)
        columns = min(len(chosen), 2)
        size = (columns * _PANEL_SIZE[0], rows * _PANEL_SIZE[1])
        figure = Figure(figsize=size)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
        for place, (panel, keys) in enumerate(chosen, start=1):
            axes = figure.add_subplot(rows, columns, place)
            chosen_series = {key: series[key] for key in keys}
            _draw_panel(axes, panel, epochs, chosen_series, warmup_epochs)
        figures.save_picture(figure, path_stem)
    return [panel.title for panel, _ in chosen]


def select_keys(panel: Panel, series: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the keys of a panel that have a value; those of the weights come first."""
    keys = [
        key
        for key, values in series.items()
        if any(word in key for word in panel.words)
        and not all(math.isnan(value) for value in values)
    ]
    return sorted(keys, key=lambda key: not key.startswith("weight/"))


def _draw_panel(
    axes: Axes,
    panel: Panel,
    epochs: Sequence[int],
    series: Mapping[str, Sequence[float]],
    warmup_epochs: int,
) -> None:
    """Draw one diagram: normal cells solid, reduction cells dashed in like colour."""
    marker = "o" if len(epochs) <= _FEW_EPOCHS else ""
    colours: dict[str, str] = {}
    for key, values in series.items():
        twin = key.replace("reduce", "normal")
        colour = colours.setdefault(twin, _COLOURS[len(colours) % len(_COLOURS)])
        dashes = "-" if key == twin else (0, (4, 1.5))
        axes.plot(epochs, values, label=key, color=colour, ls=dashes, marker=marker)
    left, right = epochs[0] - 0.5, epochs[-1] + 0.5
    warm = min(warmup_epochs - 0.5, right)
    if warm > left:
        axes.axvspan(left, warm, color=_WARMUP, lw=0, zorder=0, label="warm-up")
    axes.set_xlim(left, right)
    if panel.is_logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        _widen(axes)
    axes.set_title(panel.title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panel.is_share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    place = (-0.02, -0.17)
    axes.legend(
        loc="upper left", bbox_to_anchor=place, ncols=2, fontsize=8, handlelength=2.6
    )


def _widen(axes: Axes) -> None:
    """Keep rounding errors of a constant quantity from looking like a course."""
    low, high = axes.get_ylim()
    missing = 0.02 * max(abs(low), abs(high)) - (high - low)
    if missing > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)
