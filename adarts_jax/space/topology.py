"""The cell as a graph: states, edges and their flat order, reduction positions.

Integers only; no operations, no arrays, no JAX.

A cell has two input states (0: the cell before the previous one, 1: the previous
cell) and ``num_nodes`` intermediate nodes, which are the states 2, 3, ... Every
intermediate node receives one edge from each earlier state. Edges are numbered row
by row: by target, then by source.

References:
  Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, 2.1.
"""

from typing import Final, Literal

CellType = Literal["normal", "reduce"]

CELL_TYPES: Final[tuple[CellType, ...]] = ("normal", "reduce")
NUM_INPUTS: Final = 2
NUM_NODES: Final = 4

# Far beyond any network that was ever trained; what exceeds them is a mistake.
MAX_CELLS: Final = 1000
MAX_CHANNELS: Final = 65_536
MAX_CLASSES: Final = 1_000_000
MAX_SIDE: Final = 16_384  # pixels


def num_edges(num_nodes: int = NUM_NODES) -> int:
    """Return the number of edges of a cell: 2 + 3 + ... + (num_nodes + 1).

    >>> num_edges()
    14
    >>> [num_edges(n) for n in range(4)]
    [0, 2, 5, 9]

    Raises:
      ValueError: ``num_nodes`` is negative.
    """
    if num_nodes < 0:
        raise ValueError(f"num_nodes={num_nodes} must not be negative")
    return num_nodes * (num_nodes + 2 * NUM_INPUTS - 1) // 2


def num_nodes(num_edges: int) -> int:
    """Return how many intermediate nodes have ``num_edges`` edges together.

    >>> num_nodes(14)
    4

    Raises:
      ValueError: no cell has that many edges.
    """
    nodes, edges = 0, 0
    while edges < num_edges:
        edges += NUM_INPUTS + nodes
        nodes += 1
    if edges != num_edges:
        raise ValueError(
            f"num_edges={num_edges} fits no cell; the counts are 2, 5, 9, 14, 20, ..."
        )
    return nodes


def incoming_edges(node: int) -> slice:
    """Return the flat range of the edges that enter intermediate node 0, 1, ...

    >>> [incoming_edges(node) for node in range(2)]
    [slice(0, 2, None), slice(2, 5, None)]
    """
    start = num_edges(node)
    return slice(start, start + NUM_INPUTS + node)


def edge_sources(num_nodes: int = NUM_NODES) -> tuple[tuple[int, int], ...]:
    """Return (source, target) states of every edge in flat order.

    >>> edge_sources(2)
    ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    """
    targets = range(NUM_INPUTS, NUM_INPUTS + num_nodes)
    return tuple((source, target) for target in targets for source in range(target))


def edge_index(source: int, target: int) -> int:
    """Return the flat number of the edge from state ``source`` to state ``target``.

    >>> edge_index(2, 3)
    4

    Raises:
      ValueError: the target is an input, or the source does not come before it.
    """
    if target < NUM_INPUTS or not 0 <= source < target:
        raise ValueError(
            f"no edge {source} -> {target}: the source must be an earlier state and "
            f"the target at least {NUM_INPUTS}"
        )
    return num_edges(target - NUM_INPUTS) + source


def concat_nodes(num_nodes: int = NUM_NODES) -> tuple[int, ...]:
    """Return the states that form the output of a searched cell: all nodes.

    >>> concat_nodes()
    (2, 3, 4, 5)
    """
    return tuple(range(NUM_INPUTS, NUM_INPUTS + num_nodes))


def reduction_cells(num_cells: int) -> tuple[int, ...]:
    """Return the positions of the reduction cells: at one and at two thirds.

    >>> reduction_cells(8), reduction_cells(20), reduction_cells(14)
    ((2, 5), (6, 13), (4, 9))
    >>> reduction_cells(1)
    (0,)
    """
    return tuple(sorted({num_cells // 3, 2 * num_cells // 3}))
