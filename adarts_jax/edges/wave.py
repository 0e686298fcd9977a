"""Waves: the edges of a cell that can run as one batched operation.

Edges that leave the same states at the same stride are stacked: a cell of four nodes
is four waves (8 + 3 + 2 + 1 edges) instead of fourteen operations.
"""

import dataclasses
import functools

from adarts_jax.space import topology


@dataclasses.dataclass(frozen=True)
class Wave:
    """A stack of edges, ordered by source, then by target.

    Attributes:
      sources: states that the edges leave, ascending.
      targets: states that the edges enter, ascending.
      edges: index of each edge in the cell's flat order (the rows of alpha).
      edge_sources: position within ``sources``, per edge.
      edge_targets: position within ``targets``, per edge.
    """

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    edges: tuple[int, ...]
    edge_sources: tuple[int, ...]
    edge_targets: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of edges."""
        return len(self.edges)


@functools.cache
def cell_waves(num_nodes: int = 4) -> tuple[Wave, ...]:
    """Return the waves of a cell: one for both inputs, one per further source.

    >>> [wave.size for wave in cell_waves(4)]
    [8, 3, 2, 1]
    """
    groups = [(0, 1), *((state,) for state in range(2, num_nodes + 1))]
    return tuple(_wave(sources, num_nodes) for sources in groups)


def _wave(sources: tuple[int, ...], num_nodes: int) -> Wave:
    ends = topology.edge_sources(num_nodes)
    edges = sorted(
        (source, target, index)
        for index, (source, target) in enumerate(ends)
        if source in sources
    )
    targets = tuple(sorted({target for _, target, _ in edges}))
    return Wave(
        sources=sources,
        targets=targets,
        edges=tuple(index for _, _, index in edges),
        edge_sources=tuple(sources.index(source) for source, _, _ in edges),
        edge_targets=tuple(targets.index(target) for _, target, _ in edges),
    )
