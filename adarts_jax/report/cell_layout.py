"""Where the parts of a cell picture go: columns, their order, heights. Numbers only.

Nothing is drawn here. The layout is a layered one (Sugiyama, Tagawa, Toda, 1981): a
state stands one column to the right of its latest source; a signal that is needed
further right gets a lane of its own in every column it passes, so that no line runs
behind a label. The order inside a column is chosen for few crossings, the heights for
straight lines. Equal input gives equal output.
"""

import dataclasses
import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from adarts_jax.space import topology

NODE_HEIGHT: Final = 0.42
LANE_HEIGHT: Final = 0.16
SPACING: Final = 0.24

_STARTS: Final = 24
_SMOOTHING_ROUNDS: Final = 48
_LANE_STIFFNESS: Final = 8.0
_LARGEST_SHIFT: Final = 0.3


class Link(NamedTuple):
    """A piece of line across the gap between two columns.

    Attributes:
      source: the state whose signal it carries.
      target: the state it enters; equal to ``source`` where it goes on in a lane.
      port: which input of the target, None for a lane.
    """

    source: int
    target: int
    port: int | None


@dataclasses.dataclass
class CellLayout:
    """A cell on paper; heights in inches, growing downwards.

    Attributes:
      inputs: the sources of every state; the last state is the output of the cell.
      home: the column of every state.
      columns: the states of every column from top to bottom. A state occurs at home
        and in the columns its signal passes.
      links: the pieces of line in the gap to the right of every column but the last.
      heights: centre of every (column, state).
      port_height: room for one labelled input.
    """

    inputs: list[tuple[int, ...]]
    home: list[int]
    columns: list[list[int]]
    links: list[list[Link]]
    heights: dict[tuple[int, int], float]
    port_height: float

    @property
    def output(self) -> int:
        """The number of the output state."""
        return len(self.inputs) - 1

    def size(self, column: int, state: int) -> float:
        """Return the height of a state in a column: of itself, or of its lane."""
        if self.home[state] != column:
            return LANE_HEIGHT
        port_height = LANE_HEIGHT if state == self.output else self.port_height
        return max(NODE_HEIGHT, len(self.inputs[state]) * port_height)

    def port(self, state: int, port: int | None) -> float:
        """Return how far below the centre of a state a line enters it.

        Inputs are stacked in the order in which their lines arrive from the left.
        """
        if port is None:
            return 0.0
        column, inputs = self.home[state], self.inputs[state]
        arrival = [(self.heights[column - 1, s], p) for p, s in enumerate(inputs)]
        rank = sorted(arrival).index(arrival[port])
        return ((rank + 0.5) / len(inputs) - 0.5) * self.size(column, state)

    def ends(self, column: int, link: Link) -> tuple[float, float]:
        """Return the heights at which a link leaves a column and enters the next."""
        end = self.heights[column + 1, link.target] + self.port(link.target, link.port)
        return self.heights[column, link.source], end

    def extent(self) -> tuple[float, float]:
        """Return the highest and the lowest height that anything reaches."""
        boxes = [(y, self.size(*key) / 2) for key, y in self.heights.items()]
        return min(y - half for y, half in boxes), max(y + half for y, half in boxes)


def layout_cell(
    sources: Sequence[Sequence[int]], concat: Sequence[int], *, port_height: float
) -> CellLayout:
    """Arrange a cell from left to right.

    Args:
      sources: for every intermediate node the states it reads.
      concat: the states that form the output.
      port_height: height of one labelled input, inches.

    Returns:
      A layout in which no two things of a column overlap.
    """
    roots = [()] * topology.NUM_INPUTS
    inputs = [*roots, *map(tuple, sources), tuple(concat)]
    home = _home_columns(inputs)
    columns, links = _columns_and_links(inputs, home)
    columns = _order_columns(columns, links)
    layout = CellLayout(inputs, home, columns, links, {}, port_height)
    _assign_heights(layout)
    return layout


def _home_columns(inputs: Sequence[Sequence[int]]) -> list[int]:
    """Put every state right of its latest source, and the output right of them all."""
    home = [0] * topology.NUM_INPUTS
    for sources in inputs[topology.NUM_INPUTS : -1]:
        home.append(1 + max(home[s] for s in sources))
    return [*home, 1 + max(home)]


def _columns_and_links(
    inputs: Sequence[Sequence[int]], home: Sequence[int]
) -> tuple[list[list[int]], list[list[Link]]]:
    """Cut every line into one piece per gap, with lanes in the columns it passes."""
    columns: list[list[int]] = [[] for _ in range(max(home) + 1)]
    links: list[list[Link]] = [[] for _ in range(max(home))]
    for state, column in enumerate(home):
        columns[column].append(state)
        users = [home[t] for t, sources in enumerate(inputs) if state in sources]
        for passed in range(column + 1, max(users, default=0)):
            columns[passed].append(state)
            links[passed - 1].append(Link(state, state, None))
        for port, source in enumerate(inputs[state]):
            links[column - 1].append(Link(source, state, port))
    return columns, links


def _order_columns(
    columns: Sequence[Sequence[int]], links: Sequence[Sequence[Link]]
) -> list[list[int]]:
    """Return the order inside each column that crosses fewest lines.

    Neighbours are exchanged as long as that helps, from several shuffled starts. The
    inputs of the cell stay as they are, the older one on top.
    """
    shuffler = random.Random(0)
    trials = []
    for start in range(_STARTS):
        trial = [list(column) for column in columns]
        for column in trial[1:] if start else ():
            shuffler.shuffle(column)
        _exchange_neighbours(trial, links)
        trials.append((_cost(trial, links, range(len(links))), start, trial))
    return min(trials)[-1]


def _exchange_neighbours(
    columns: list[list[int]], links: Sequence[Sequence[Link]]
) -> None:
    """Swap neighbours in a column, in place, until no swap makes it better."""
    improved = True
    while improved:
        improved = False
        for c, column in enumerate(columns[1:], start=1):
            gaps = range(c - 1, min(c + 1, len(links)))
            for i in range(len(column) - 1):
                before = _cost(columns, links, gaps)
                column[i : i + 2] = column[i + 1], column[i]
                if _cost(columns, links, gaps) < before:
                    improved = True
                else:
                    column[i : i + 2] = column[i + 1], column[i]


def _cost(
    columns: Sequence[Sequence[int]], links: Sequence[Sequence[Link]], gaps: range
) -> tuple[int, float]:
    """Return (crossings, slant) of gaps; slant prefers straight lines among equals."""
    crossings, slant = 0, 0.0
    for gap in gaps:
        left, right = columns[gap], columns[gap + 1]
        ends = [(left.index(k.source), right.index(k.target)) for k in links[gap]]
        crossings += sum((a - c) * (b - d) < 0 for a, b in ends for c, d in ends) // 2
        for a, b in ends:
            slant += abs((a + 0.5) / len(left) - (b + 0.5) / len(right))
    return crossings, round(slant, 6)


def _assign_heights(layout: CellLayout) -> None:
    """Pull everything towards the other ends of its lines, keeping order and space."""
    for c, column in enumerate(layout.columns):
        _place(layout, c, [(0.0, 1.0)] * len(column))
    last = len(layout.columns)
    for step in range(_SMOOTHING_ROUNDS):
        for c in range(last) if step % 2 else reversed(range(last)):
            _place(layout, c, [_pull(layout, c, s) for s in layout.columns[c]])
    for state in range(layout.output):
        _straighten(layout, state)


def _straighten(layout: CellLayout, state: int) -> None:
    """Give all lanes of a state one height, if there is room for it nearby."""
    lanes = [(c, state) for c in range(layout.home[state] + 1, len(layout.columns))]
    lanes = [lane for lane in lanes if lane in layout.heights]
    if not lanes:
        return
    last = lanes[-1][0]
    wishes = [
        layout.ends(last, link)[1] for link in layout.links[last] if link[0] == state
    ]
    wishes.append(layout.heights[lanes[0][0] - 1, state])
    wishes.append(sum(layout.heights[lane] for lane in lanes) / len(lanes))
    for wish in wishes:
        if all(_is_free(layout, *lane, wish) for lane in lanes):
            layout.heights.update(dict.fromkeys(lanes, wish))
            return


def _is_free(layout: CellLayout, c: int, state: int, height: float) -> bool:
    """Say whether a lane may move to a height: a short way, and not near anything."""
    if abs(height - layout.heights[c, state]) > _LARGEST_SHIFT:
        return False
    column = layout.columns[c]
    place = column.index(state)
    for other in column[max(place - 1, 0) : place] + column[place + 1 : place + 2]:
        room = (layout.size(c, other) + LANE_HEIGHT + SPACING) / 2
        below = column.index(other) > place
        distance = layout.heights[c, other] - height
        if (distance if below else -distance) < room:
            return False
    return True


def _pull(layout: CellLayout, c: int, state: int) -> tuple[float, float]:
    """Return the mean height that the lines of a state ask for, and its weight."""
    wishes = [(layout.heights[c, state], 0.01)]
    for gap in (c - 1, c):
        for link in layout.links[gap] if 0 <= gap < len(layout.links) else ():
            leaves, enters = layout.ends(gap, link)
            weight = _LANE_STIFFNESS if link.port is None else 1.0
            if gap == c and link.source == state:
                wishes.append((layout.heights[c, state] + enters - leaves, weight))
            if gap < c and link.target == state:
                wishes.append((layout.heights[c, state] + leaves - enters, weight))
    total = sum(weight for _, weight in wishes)
    return sum(height * weight for height, weight in wishes) / total, total


def _place(layout: CellLayout, c: int, wishes: Sequence[tuple[float, float]]) -> None:
    """Set the heights of a column: least squares under order and spacing.

    With cumulated spacing subtracted, "in order and apart" becomes "not decreasing",
    which pooling adjacent violators solves exactly.
    """
    column, offset, offsets = layout.columns[c], 0.0, []
    blocks: list[tuple[float, float, int]] = []
    for i, (state, (height, weight)) in enumerate(zip(column, wishes, strict=True)):
        if i:
            halves = layout.size(c, column[i - 1]) + layout.size(c, state)
            offset += SPACING + halves / 2
        offsets.append(offset)
        blocks.append((height - offset, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (m2, w2, n2), (m1, w1, n1) = blocks.pop(), blocks.pop()
            mean = (m1 * w1 + m2 * w2) / (w1 + w2)
            blocks.append((mean, w1 + w2, n1 + n2))
    levels = (mean for mean, _, count in blocks for _ in range(count))
    for state, level, shift in zip(column, levels, offsets, strict=True):
        layout.heights[c, state] = level + shift
