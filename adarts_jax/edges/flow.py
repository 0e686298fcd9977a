"""What enters a wave of edges and what leaves it: shared by all kinds of edges."""

import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adarts_jax.edges.wave import Wave

Images = Float[Array, "batch height width channel"]


def take_rows(
    wave: Wave, values: Float[Array, "all_edges ..."]
) -> Float[Array, "edge ..."]:
    """Return the rows of a wave's edges.

    A product instead of a gather, whose gradient would be a scatter.
    """
    picked = jax.nn.one_hot(jnp.array(wave.edges), values.shape[0])
    return jnp.tensordot(picked, values, 1, precision="highest")


def enter(wave: Wave, states: tuple[Images, ...]) -> Images:
    """Lay the states that the edges leave side by side, edge-major."""
    return jnp.concatenate([states[s] for s in wave.edge_sources], axis=-1)


def leave(wave: Wave, outputs: Images) -> list[Images]:
    """Add up the outputs of the edges that enter the same target.

    Args:
      wave: the edges.
      outputs: their outputs side by side.
    """
    totals: dict[int, Images] = {}
    parts = jnp.split(outputs, wave.size, axis=-1)
    for target, part in zip(wave.edge_targets, parts, strict=True):
        totals[target] = totals[target] + part if target in totals else part
    return [totals[target] for target in range(len(wave.targets))]


def bypass(
    wave: Wave, states: tuple[Images, ...], weights: Float[Array, " edge"]
) -> list[Images]:
    """Return, per target, the weighted sum of the states that its edges leave."""
    targets = jax.nn.one_hot(jnp.array(wave.edge_targets), len(wave.targets))
    sources = jax.nn.one_hot(jnp.array(wave.edge_sources), len(states))
    to_target = jnp.einsum("et,es,e->ts", targets, sources, weights)
    return [
        functools.reduce(
            operator.add, (to_target[t, s] * x for s, x in enumerate(states))
        )
        for t in range(len(wave.targets))
    ]
