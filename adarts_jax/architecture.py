"""Architecture parameters: a pytree of their own, never inside the network's variables.

No network code here: this module knows shapes and normalisations only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from adarts_jax.space import topology
from adarts_jax.space.topology import CellType

PLAIN_SCALE = 1e-3


@struct.dataclass
class ArchitectureParams:
    """Logits that the search trains, shared by all cells of a type.

    Attributes:
      alpha_normal: (edge, op) logits over the primitives of each edge, normal cells.
      alpha_reduce: the same for reduction cells.
      beta_normal: (edge,) logits over the incoming edges of a node; None where the
        method has no edge normalization.
      beta_reduce: the same for reduction cells.
      attention_normal: (edge, attention) logits over the attentions after each edge's
        operations; None where the method has none (all but Att-DARTS).
      attention_reduce: the same for reduction cells.
      groups: (cell, edge, group) factors of the channel groups of every edge, not
        shared between cells; None unless G-DARTS-A trains them here.
    """

    alpha_normal: PyTree
    alpha_reduce: PyTree
    beta_normal: PyTree = None
    beta_reduce: PyTree = None
    attention_normal: PyTree = None
    attention_reduce: PyTree = None
    groups: PyTree = None

    def alpha(self, cell_type: CellType) -> Float[Array, "edge op"]:
        """Return the alpha logits of one cell type."""
        return self.alpha_reduce if cell_type == "reduce" else self.alpha_normal

    def beta(self, cell_type: CellType) -> Float[Array, " edge"] | None:
        """Return the beta logits of one cell type, None without edge normalization."""
        return self.beta_reduce if cell_type == "reduce" else self.beta_normal

    def attention(self, cell_type: CellType) -> Float[Array, "edge attention"] | None:
        """Return the attention logits of one cell type, None without attention."""
        if cell_type == "reduce":
            return self.attention_reduce
        return self.attention_normal


class CellWeights(NamedTuple):
    """Normalised architecture of one cell: what its edges receive.

    Attributes:
      op: (edge, op), softmax of alpha.
      edge: (edge,), softmax of beta over the edges of a node; 1 without betas.
      attention: (edge, attention), softmax of the attention logits, or None.
      groups: (edge, group) factors of this cell, or None.
    """

    op: Float[Array, "edge op"]
    edge: Float[Array, " edge"]
    attention: Float[Array, "edge attention"] | None = None
    groups: Float[Array, "edge group"] | None = None


def init_architecture(
    key: PRNGKeyArray,
    *,
    num_primitives: int,
    num_nodes: int = 4,
    edge_normalization: bool = True,
    num_attentions: int = 0,
    biased_primitive: int | None = None,
    scale: float = PLAIN_SCALE,
) -> ArchitectureParams:
    """Draw architecture parameters.

    Plain initialisation: ``scale * N(0, 1)`` for every tensor. Biased initialisation
    (alpha-ADARTS): ``alpha = scale * t`` with ``t = 0.5 * N(0, 1)`` except that column
    ``biased_primitive`` of ``t`` is 1. Betas and
    attention logits are always plain.

    Args:
      key: random key.
      num_primitives: number of candidate operations per edge.
      num_nodes: intermediate nodes of a cell.
      edge_normalization: whether the method has betas.
      num_attentions: candidates after the operations of an edge; 0 for none.
      biased_primitive: index of the favoured primitive, None for the plain start.
      scale: standard deviation of the plain start; 0 starts at zero.

    Returns:
      Float32 parameters with ``topology.num_edges(num_nodes)`` edges.
    """
    edges = topology.num_edges(num_nodes)
    keys = jax.random.split(key, 4)
    more = jax.random.split(jax.random.fold_in(key, 1))

    def alpha(k: PRNGKeyArray) -> Float[Array, "edge op"]:
        noise = jax.random.normal(k, (edges, num_primitives), jnp.float32)
        if biased_primitive is None:
            return scale * noise
        return scale * (0.5 * noise).at[:, biased_primitive].set(1.0)

    def beta(k: PRNGKeyArray) -> Float[Array, " edge"] | None:
        if not edge_normalization:
            return None
        return scale * jax.random.normal(k, (edges,), jnp.float32)

    def attention(k: PRNGKeyArray) -> Float[Array, "edge attention"] | None:
        if not num_attentions:
            return None
        return scale * jax.random.normal(k, (edges, num_attentions), jnp.float32)

    return ArchitectureParams(
        alpha(keys[0]),
        alpha(keys[1]),
        beta(keys[2]),
        beta(keys[3]),
        attention(more[0]),
        attention(more[1]),
    )


def op_weights(alpha: Float[Array, "edge op"]) -> Float[Array, "edge op"]:
    """Softmax over the primitives of each edge (``none`` takes part)."""
    return jax.nn.softmax(alpha, axis=-1)


def edge_weights(beta: Float[Array, " edge"]) -> Float[Array, " edge"]:
    """Softmax over the incoming edges of each node (PC-DARTS edge normalization)."""
    num_nodes = topology.num_nodes(beta.shape[0])
    slices = [topology.incoming_edges(node) for node in range(num_nodes)]
    return jnp.concatenate([jax.nn.softmax(beta[s]) for s in slices])


def cell_weights(
    arch: ArchitectureParams, cell_type: CellType, cell: int
) -> CellWeights:
    """Normalise what one cell needs.

    Args:
      arch: architecture parameters.
      cell_type: of the cell.
      cell: its index.
    """
    op, beta = op_weights(arch.alpha(cell_type)), arch.beta(cell_type)
    attention = arch.attention(cell_type)
    return CellWeights(
        op=op,
        edge=jnp.ones(op.shape[:1]) if beta is None else edge_weights(beta),
        attention=None if attention is None else jax.nn.softmax(attention, axis=-1),
        groups=None if arch.groups is None else arch.groups[cell],
    )


def entropy(
    weights: Float[Array, "edge op"] | Float[Array, " edge"],
) -> Float[Array, ""]:
    """Mean entropy of op weights, in nats; 0 when every edge has decided."""
    safe = jnp.where(weights > 0, weights, 1.0)
    return -(weights * jnp.log(safe)).sum(-1).mean()
