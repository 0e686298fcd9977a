"""Genotype of a recurrent cell: one activation and one source per node."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from adarts_jax.errors import UserError, did_you_mean

RECURRENT_PRIMITIVES: Final = ("none", "tanh", "relu", "sigmoid", "identity")
"""The candidates of the recurrent search, in index order; a genotype never has none."""


class RecurrentEntry(NamedTuple):
    """The activation of a node and the state it starts from."""

    op: str
    source: int


@dataclass(frozen=True)
class RecurrentGenotype:
    """A recurrent cell: state 0 is the gated input, node i (from 0) is state i + 1.

    Attributes:
      recurrent: one entry per node; node i may use the states 0 to i.
      concat: states averaged to the output of the cell.

    Raises:
      UserError: an unknown activation, or a state out of range.

    References:
      Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
      3.1.2 and A.1.2.
    """

    recurrent: tuple[RecurrentEntry, ...]
    concat: tuple[int, ...]

    def __post_init__(self):
        known = RECURRENT_PRIMITIVES[1:]
        entries = tuple(RecurrentEntry(*entry) for entry in self.recurrent)
        for node, (op, source) in enumerate(entries):
            if op not in known:
                hint = did_you_mean(str(op)[:64], known)
                raise UserError(f"recurrent[{node}]: unknown activation {op!r}{hint}")
            if source not in range(node + 1):
                raise UserError(
                    f"recurrent[{node}]: source {source} is out of range; it may use "
                    f"the states 0 to {node}"
                )
        for state in self.concat:
            if state not in range(1, len(entries) + 1):
                raise UserError(
                    f"concat: state {state} is out of range; the nodes are 1 to "
                    f"{len(entries)}"
                )
        object.__setattr__(self, "recurrent", entries)
        object.__setattr__(self, "concat", tuple(self.concat))


def _all_nodes(*entries: tuple[str, int]) -> RecurrentGenotype:
    nodes = tuple(RecurrentEntry(*entry) for entry in entries)
    return RecurrentGenotype(nodes, tuple(range(1, len(nodes) + 1)))


PUBLISHED_RECURRENT: Mapping[str, RecurrentGenotype] = MappingProxyType(
    {
        "darts_v1": _all_nodes(
            ("relu", 0),
            ("relu", 1),
            ("tanh", 2),
            ("relu", 3),
            ("relu", 4),
            ("identity", 1),
            ("relu", 5),
            ("relu", 1),
        ),
        "darts_v2": _all_nodes(
            ("sigmoid", 0),
            ("relu", 1),
            ("relu", 1),
            ("identity", 1),
            ("tanh", 2),
            ("sigmoid", 5),
            ("tanh", 3),
            ("relu", 5),
        ),
    }
)
"""The recurrent cells released with DARTS, by name."""
