"""Draw the cells of a genotype: states, operations on the edges, the output.

Where things go is decided in ``cell_layout``; this module knows shapes and colours.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

from adarts_jax.report import cell_layout, figures
from adarts_jax.report.notation import (
    FAMILIES,
    INPUT_NAMES,
    OUTPUT_NAME,
    operation_family,
)
from adarts_jax.space.genotype import Entry, Genotype
from adarts_jax.space.topology import NUM_INPUTS

_ENDS: Final = (figures.INK, "#e4e7eb")
_NODE: Final = (figures.INK, "#ffffff")

_WIRE: Final = "#3e4c59"
_OUTPUT_WIRE: Final = "#bcc5ce"
_CHARACTER: Final = 0.086  # inches per character of a label, with slack
_LEGEND_CHARACTER: Final = 0.06
_LABEL_HEIGHT: Final = 0.29
_PORT_HEIGHT: Final = 0.37
_CONNECTOR: Final = 0.3
_NODE_WIDTH: Final = 0.42
_INPUT_WIDTH: Final = 0.62
_MARGIN: Final = 0.25
_HEADER: Final = 0.55
_FOOTER: Final = 0.55


@dataclasses.dataclass(frozen=True)
class _Column:
    """Horizontal measures of a column, inches: two kinds of label, then the state."""

    left: float
    operation: float
    attention: float
    right: float


def draw_genotype(genotype: Genotype, directory: str | Path) -> None:
    """Write ``normal`` and ``reduction`` as SVG and PNG into a folder.

    Args:
      genotype: what to draw.
      directory: folder of the pictures, made if missing; old pictures are replaced.
    """
    folder = Path(directory)
    normal, reduction = folder / "normal", folder / "reduction"
    draw_cell(genotype.normal, genotype.normal_concat, normal, "Normal cell")
    draw_cell(genotype.reduce, genotype.reduce_concat, reduction, "Reduction cell")


def draw_cell(
    entries: Sequence[Entry],
    concat: Sequence[int],
    path_stem: str | Path,
    title: str,
) -> None:
    """Write the picture of one cell as ``<path_stem>.svg`` and ``<path_stem>.png``.

    Args:
      entries: two (operation, source, attention or None) per intermediate node.
      concat: the states that form the output.
      path_stem: path without suffix; missing folders are made.
      title: heading of the picture.
    """
    entries = [Entry(*entry) for entry in entries]
    nodes = [entries[i : i + 2] for i in range(0, len(entries), 2)]
    layout = cell_layout.layout_cell(
        [[entry.source for entry in node] for node in nodes],
        concat,
        port_height=_PORT_HEIGHT,
    )
    columns = _columns(layout, nodes)
    legend = _legend_places(entries)
    top, bottom = layout.extent()
    with figures.picture_style():
        width = max(columns[-1].right, *legend.values()) + _MARGIN
        figure, axes = _paper(width, bottom - top + _HEADER + _FOOTER, top - _HEADER)
        _draw_wires(axes, layout, columns, nodes)
        _draw_states(axes, layout, columns, nodes)
        axes.text(_MARGIN, top - 0.3, title, size=12, weight="bold", va="center")
        _draw_legend(axes, legend, bottom + 0.32)
        figures.save_picture(figure, path_stem)


def _paper(width: float, height: float, top: float) -> tuple[Figure, Axes]:
    """Return a figure covered by axes in inches that grow downwards from ``top``."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0.0, width), ylim=(top + height, top))
    axes.axis("off")
    return figure, axes


def _label_texts(entry: Entry) -> list[str]:
    """Return what stands on an edge; the identity attention is not shown."""
    if entry.attention in (None, "Identity"):
        return [entry.op]
    return [entry.op, entry.attention]


def _label_widths(entry: Entry) -> tuple[float, float]:
    """Return the widths of the operation's label and of the attention's, inches."""
    widths = [0.16 + _CHARACTER * len(text) for text in _label_texts(entry)]
    return widths[0], sum(widths[1:])


def _columns(
    layout: cell_layout.CellLayout, nodes: Sequence[Sequence[Entry]]
) -> list[_Column]:
    """Place the columns: wide enough for their labels, apart enough for steep lines."""
    columns = [_Column(_MARGIN, 0.0, 0.0, _MARGIN + _INPUT_WIDTH)]
    for c, links in enumerate(layout.links, start=1):
        ends = [layout.ends(c - 1, link) for link in links]
        steepest = max(abs(start - end) for start, end in ends)
        left = columns[-1].right + min(0.45 + 0.22 * steepest, 1.4)
        labels = [
            _label_widths(entry)
            for state, node in enumerate(nodes, start=NUM_INPUTS)
            for entry in node
            if layout.home[state] == c
        ]
        operation = max((first for first, _ in labels), default=0.0)
        attention = max((second for _, second in labels), default=0.0)
        connector = _CONNECTOR if labels else 0.0
        right = left + operation + attention + connector + _NODE_WIDTH
        columns.append(_Column(left, operation, attention, right))
    return columns


def _draw_wires(
    axes: Axes,
    layout: cell_layout.CellLayout,
    columns: Sequence[_Column],
    nodes: Sequence[Sequence[Entry]],
) -> None:
    """Draw the lines between the columns, and the lanes through them."""
    for gap, links in enumerate(layout.links):
        for link in links:
            colour = _wire_colour(layout, gap, link, nodes)
            start, end = layout.ends(gap, link)
            left, right = columns[gap].right, columns[gap + 1].left
            _draw_line(axes, (left, start), (right, end), colour)
            if link.port is None:
                beyond = (columns[gap + 1].right, end)
                _draw_line(axes, (right, end), beyond, colour)


def _wire_colour(
    layout: cell_layout.CellLayout,
    gap: int,
    link: cell_layout.Link,
    nodes: Sequence[Sequence[Entry]],
) -> str:
    """Return the colour of the operations a line leads to, if they are of one family.

    Lines that lead to the output only are light, lines that still fork are grey.
    """
    later = layout.links[gap + 1 :] if link.port is None else [[link]]
    uses = [
        (target, port)
        for links in later
        for source, target, port in links
        if source == link.source and port is not None
    ]
    operations = [
        nodes[target - NUM_INPUTS][port].op
        for target, port in uses
        if target != layout.output
    ]
    families = {operation_family(operation) for operation in operations}
    if not families:
        return _OUTPUT_WIRE
    one_kind = len(families) == 1 and len(operations) == len(uses)
    return FAMILIES[families.pop()].line if one_kind else _WIRE


def _draw_line(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str
) -> None:
    """Draw a curve that leaves and arrives horizontally."""
    middle = (start[0] + end[0]) / 2
    curve = Curve(
        [start, (middle, start[1]), (middle, end[1]), end],
        [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4],
    )
    axes.add_patch(PathPatch(curve, fill=False, lw=1.4, ec=colour, capstyle="round"))


def _draw_states(
    axes: Axes,
    layout: cell_layout.CellLayout,
    columns: Sequence[_Column],
    nodes: Sequence[Sequence[Entry]],
) -> None:
    """Draw inputs, intermediate nodes with the labels of their edges, and output."""
    for state, c in enumerate(layout.home):
        column, y = columns[c], layout.heights[c, state]
        size, left = layout.size(c, state), column.right - _NODE_WIDTH
        if state < NUM_INPUTS:
            box = (column.left, y - size / 2, _INPUT_WIDTH, size)
            _draw_box(axes, box, _ENDS, INPUT_NAMES[state], size=13)
        elif state == layout.output:
            box = (left, y - size / 2, _NODE_WIDTH, size)
            _draw_box(axes, box, _ENDS, OUTPUT_NAME, size=13)
        else:
            for port, entry in enumerate(nodes[state - NUM_INPUTS]):
                label = y + layout.port(state, port)
                right = column.left + column.operation + column.attention
                colour = FAMILIES[operation_family(entry.op)].line
                _draw_line(axes, (right, label), (left, y), colour)
                _draw_label(axes, column, label, entry)
            box = (left, y - _NODE_WIDTH / 2, _NODE_WIDTH, _NODE_WIDTH)
            _draw_box(axes, box, _NODE, str(state - NUM_INPUTS), size=11)


def _draw_label(axes: Axes, column: _Column, y: float, entry: Entry) -> None:
    """Draw the operation of an edge, and behind it the attention that follows."""
    operation, *attentions = _label_texts(entry)
    left, top, height = column.left, y - _LABEL_HEIGHT / 2, _LABEL_HEIGHT
    width = column.operation + (0.0 if attentions else column.attention)
    for attention in attentions:
        # the left end of this box hides behind the operation's
        hidden, right = left + width - height, left + width + column.attention
        _draw_box(axes, (hidden, top, right - hidden, height), _colours("attention"))
        _draw_text(axes, left + width + column.attention / 2, y, attention)
    colours = _colours(operation_family(operation))
    _draw_box(axes, (left, top, width, height), colours, operation)


def _colours(family: str) -> tuple[str, str]:
    """Return the line and the fill of a family."""
    return FAMILIES[family].line, FAMILIES[family].fill


def _draw_box(
    axes: Axes,
    box: tuple[float, float, float, float],
    colours: tuple[str, str],
    label: str = "",
    *,
    size: float = 10.0,
) -> None:
    """Draw a rounded box (left, top, width, height) with a centred label."""
    left, top, width, height = box
    style = f"round,pad=0,rounding_size={min(0.14, height / 2, width / 2)}"
    line, fill = colours
    axes.add_patch(
        FancyBboxPatch((left, top), width, height, style, fc=fill, ec=line, lw=1.2)
    )
    if label:
        _draw_text(axes, left + width / 2, top + height / 2, label, size=size)


def _draw_text(axes: Axes, x: float, y: float, text: str, *, size: float = 10) -> None:
    """Write a text centred on a point."""
    axes.text(x, y, text, size=size, ha="center", va="center_baseline")


def _legend_places(entries: Sequence[Entry]) -> dict[str, float]:
    """Return the right end of the legend of every family that occurs, inches."""
    used = {operation_family(entry.op) for entry in entries}
    if any(len(_label_texts(entry)) > 1 for entry in entries):
        used.add("attention")
    places, x = {}, _MARGIN
    for family, (name, _, _) in FAMILIES.items():
        if family in used:
            x += 0.29 + _LEGEND_CHARACTER * len(name)
            places[family] = x
            x += 0.24
    return places


def _draw_legend(axes: Axes, places: dict[str, float], y: float) -> None:
    """Name the families that occur, on one line."""
    for family, right in places.items():
        name = FAMILIES[family].name
        left = right - 0.29 - _LEGEND_CHARACTER * len(name)
        _draw_box(axes, (left, y - 0.07, 0.22, 0.14), _colours(family))
        axes.text(left + 0.29, y, name, size=8, va="center", color=figures.MUTED)
