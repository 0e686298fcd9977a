"""One style for all pictures, and how a figure becomes an SVG and a PNG file.

Works on Figure objects only: no pyplot, no display, no state that outlives a call.
Equal input gives equal bytes: the settings of the user are left aside, element names
in the SVG are salted with a constant, and no date is written.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.figure import Figure

INK: Final = "#1f2933"
MUTED: Final = "#66727f"
FAINT: Final = "#d5dbe1"
NORMAL_COLOUR: Final = "#2b6cb0"
REDUCTION_COLOUR: Final = "#c05621"

_STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#eceff2",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.fonttype": "none",  # text stays text: searchable, and labels can be tested
    "svg.hashsalt": "adarts-jax",
}


@contextlib.contextmanager
def picture_style() -> Iterator[None]:
    """Apply the project's style while a picture is drawn and saved."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def save_picture(figure: Figure, path_stem: str | Path) -> None:
    """Write ``<path_stem>.svg`` and ``<path_stem>.png``; call inside `picture_style`.

    Args:
      figure: what to write.
      path_stem: path without suffix; missing folders are made.
    """
    stem = Path(path_stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    silent = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(f"{stem}.svg", metadata=silent)
    figure.savefig(f"{stem}.png", dpi=160, metadata={"Software": None})
