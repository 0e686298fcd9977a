"""Architecture parameters -> genotype. NumPy only; no network and no JAX in here."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from adarts_jax.space import topology
from adarts_jax.space.genotype import Entry, Genotype
from adarts_jax.space.operations import DARTS_PRIMITIVES
from adarts_jax.space.topology import CellType

Rule = Literal["darts", "edge_weighted"]
EDGES_PER_NODE = 2


class Architecture(Protocol):
    """What is read of the parameters; ``ArchitectureParams`` is one."""

    def alpha(self, cell_type: CellType) -> Any:
        """Return (edge, op) logits over the primitives, NumPy or JAX."""
        ...

    def beta(self, cell_type: CellType) -> Any:
        """Return (edge,) logits over the edges of each node, or None."""
        ...

    def attention(self, cell_type: CellType) -> Any:
        """Return (edge, attention) logits, or None; read for Att-DARTS only."""
        ...


def discretize(
    arch: Architecture,
    primitives: Sequence[str],
    *,
    rule: Rule,
    attentions: Sequence[str] = (),
) -> Genotype:
    """Keep the two strongest edges of every node, each with its strongest operation.

    The strength of edge e is ``max over o except none of softmax(alpha_e)_o``
    (``"darts"``), or that times the softmax of beta over the edges of the node
    (``"edge_weighted"``). ``none`` takes part in the softmax but is never chosen.
    Entries of a node stand strongest edge first. Ties: the lower source, the earlier
    primitive.

    Args:
      arch: alpha of shape (edge, op), and beta of shape (edge,) where the rule needs
        it.
      primitives: names in the order of alpha's last axis.
      rule: ``"darts"`` (DARTS, Att-DARTS) or ``"edge_weighted"`` (PC-DARTS, ADARTS,
        alpha-ADARTS).
      attentions: names in the order of the attention logits (Att-DARTS): every entry
        gets the strongest one of its edge, the identity allowed.

    Raises:
      ValueError: shapes that do not fit, missing betas, values that are not finite.

    Differs from the original: weights are computed in float64, and equal logits in
    another order count as a tie; the original decides such cases by rounding.

    References:
      Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, 2.4;
      Xu et al., "PC-DARTS", ICLR 2020, edge normalization.
    """
    cells = {}
    for cell_type in topology.CELL_TYPES:
        alpha = _logits(f"alpha_{cell_type}", arch.alpha(cell_type), ndim=2)
        weights = _op_weights(alpha, len(primitives))
        edges = _edge_weights(arch.beta(cell_type), cell_type, len(weights), rule)
        cells[cell_type] = _cell(weights, edges, primitives)
        if attentions:
            chosen = _strongest(arch, cell_type, attentions, len(weights))
            cells[cell_type] = tuple(
                entry._replace(attention=attentions[chosen[edge]])
                for entry, edge in _with_edges(cells[cell_type])
            )
    num_nodes = {name: len(cell) // EDGES_PER_NODE for name, cell in cells.items()}
    return Genotype(
        normal=cells["normal"],
        normal_concat=topology.concat_nodes(num_nodes["normal"]),
        reduce=cells["reduce"],
        reduce_concat=topology.concat_nodes(num_nodes["reduce"]),
    )


def none_edge_share(
    arch: Architecture, primitives: Sequence[str] = DARTS_PRIMITIVES
) -> dict[str, float]:
    """Return the share of edges on which ``none`` is the strongest candidate.

    Discretization never keeps ``none``; a share near 1 says that the search would
    rather remove the edges. On a tie the earlier primitive counts as the strongest.

    Args:
      arch: alpha of shape (edge, op).
      primitives: names in the order of alpha's last axis; only the place of ``none``
        matters, which is the first in every published list.

    Returns:
      ``{"normal/none_edges": share, "reduce/none_edges": share}``, in [0, 1].
    """
    none = list(primitives).index("none") if "none" in primitives else -1
    shares = {}
    for cell_type in topology.CELL_TYPES:
        alpha = _logits(f"alpha_{cell_type}", arch.alpha(cell_type), ndim=2)
        shares[f"{cell_type}/none_edges"] = float(np.mean(alpha.argmax(-1) == none))
    return shares


def _cell(
    weights: np.ndarray, edges: np.ndarray, primitives: Sequence[str]
) -> tuple[Entry, ...]:
    """Choose the entries of one cell from (edge, op) and (edge,) weights."""
    real = [i for i, name in enumerate(primitives) if name != "none"]
    if not real:
        raise ValueError(f"primitives={tuple(primitives)} has nothing but none")
    best = weights[:, real].argmax(axis=1)  # the first of equals
    strength = weights[:, real].max(axis=1) * edges
    entries = []
    for node in range(topology.num_nodes(len(weights))):
        incoming = topology.incoming_edges(node)
        ranked = np.argsort(-strength[incoming], kind="stable")
        for source in ranked[:EDGES_PER_NODE].tolist():
            op = real[int(best[incoming.start + source])]
            entries.append(Entry(primitives[op], source))
    return tuple(entries)


def _with_edges(entries: Sequence[Entry]) -> Iterator[tuple[Entry, int]]:
    """Yield every entry with the flat index of its edge."""
    for position, entry in enumerate(entries):
        target = position // EDGES_PER_NODE + topology.NUM_INPUTS
        yield entry, topology.edge_index(entry.source, target)


def _strongest(
    arch: Architecture, cell_type: CellType, names: Sequence[str], num_edges: int
) -> list[int]:
    """Return the strongest attention of every edge, the first of equals."""
    logits = _logits(f"attention_{cell_type}", arch.attention(cell_type), ndim=2)
    if logits.shape != (num_edges, len(names)):
        raise ValueError(
            f"attention_{cell_type} has shape {logits.shape}, expected "
            f"{(num_edges, len(names))}"
        )
    return logits.argmax(axis=1).tolist()


def _op_weights(alpha: np.ndarray, num_primitives: int) -> np.ndarray:
    topology.num_nodes(len(alpha))  # refuses a number of edges that fits no cell
    if alpha.shape[1] != num_primitives:
        raise ValueError(
            f"alpha has {alpha.shape[1]} operations per edge, expected {num_primitives}"
        )
    return np.stack([_softmax(row) for row in alpha])


def _edge_weights(
    beta: Any, cell_type: CellType, num_edges: int, rule: Rule
) -> np.ndarray:
    """Return (edge,) factors of the strengths: ones under the rule of DARTS."""
    if rule == "darts":
        return np.ones(num_edges)
    if rule != "edge_weighted":
        raise ValueError(f"rule={rule!r} must be 'darts' or 'edge_weighted'")
    if beta is None:
        raise ValueError(f"rule='edge_weighted' needs beta_{cell_type}, found None")
    logits = _logits(f"beta_{cell_type}", beta, ndim=1)
    if len(logits) != num_edges:
        raise ValueError(f"beta has {len(logits)} edges, alpha {num_edges}")
    nodes = range(topology.num_nodes(num_edges))
    return np.concatenate([_softmax(logits[topology.incoming_edges(n)]) for n in nodes])


def _logits(name: str, value: Any, *, ndim: int) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}, expected {ndim} dimensions")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are not finite")
    return array


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax of one row, exactly independent of the order of its elements."""
    powers = np.exp(logits - logits.max())
    return powers / math.fsum(powers)
