"""Uniform genotypes, written as architecture parameters."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from adarts_jax.architecture import ArchitectureParams
from adarts_jax.space import topology

# Softmax makes this a choice: all the rest together weighs less than 1e-7.
CERTAIN = 20.0
EDGES_PER_NODE = 2


def uniform_architecture(
    key: PRNGKeyArray, *, num_edges: int, num_primitives: int
) -> ArchitectureParams:
    """Draw a genotype uniformly and return logits that stand for it alone.

    Every node keeps two of its edges, all pairs equally likely, each with an operation
    other than the first (``none``), all equally likely; the other edges are ``none``.

    Args:
      key: random key.
      num_edges: of a cell.
      num_primitives: candidates, ``none`` first.
    """

    def cell(key: PRNGKeyArray) -> Float[Array, "edge op"]:
        for_edges, for_ops = jax.random.split(key)
        scores = jax.random.uniform(for_edges, (num_edges,))
        kept = jnp.concatenate(
            [
                _is_among_largest(scores[topology.incoming_edges(node)])
                for node in range(topology.num_nodes(num_edges))
            ]
        )
        ops = jax.random.randint(for_ops, (num_edges,), 1, num_primitives)
        chosen = jnp.where(kept, ops, 0)
        return CERTAIN * jax.nn.one_hot(chosen, num_primitives)

    normal, reduce = jax.random.split(key)
    return ArchitectureParams(cell(normal), cell(reduce))


def _is_among_largest(scores: Float[Array, " edge"]) -> Array:
    best = jax.lax.top_k(scores, EDGES_PER_NODE)[1]
    return jnp.zeros(len(scores), bool).at[best].set(True)
