"""Batch norm of all operations of a mixed operation, and their weighted sum, in one.

The sum over operations is written out and nothing is concatenated: the normalised
outputs never exist in memory.
"""

import functools
import itertools
import math
import operator

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.nn.batch_norm import EPSILON, OVER, moments, running_update, spread

Images = Float[Array, "batch height width channel"]
Parts = tuple[Float[Array, "op batch height width channel"], ...]
PerOperation = Float[Array, "op channel"]


class NormalizedSum(nn.Module):
    """``y = sum_o w_o * (x_o - mean_o) / sqrt(var_o + eps)``: batch norm, not affine.

    The weight of an operation stands where batch norm has its scale, so that its
    gradient falls out of the normalisation's own backward pass.

    Collections: ``batch_stats`` (mean, var), one row per operation.
    """

    @nn.compact
    def __call__(self, parts: Parts, weights: PerOperation, *, train: bool) -> Images:
        """Normalise and add up.

        Args:
          parts: stacks of outputs; their op axes one after the other are all
            operations.
          weights: weight per operation and channel.
          train: use and record batch statistics instead of the running ones.
        """
        shape = weights.shape
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if not train:
            factor = weights * jax.lax.rsqrt(var.value + EPSILON)
            return _weighted_sum(parts, mean.value, factor)
        results: tuple = normalized_sum(parts, weights, EPSILON)
        y, batch_mean, batch_var = results
        if not self.is_initializing():
            count = math.prod(parts[0].shape[1:-1])
            mean.value, var.value = running_update(
                (mean.value, var.value), (batch_mean, batch_var), count
            )
        return y


def _split(values: PerOperation, parts: Parts) -> list[PerOperation]:
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + part.shape[0])
    return [values[a:b] for a, b in itertools.pairwise(ends)]


def _weighted_sum(parts: Parts, mean: PerOperation, factor: PerOperation) -> Images:
    terms = [
        (part[o] - spread(mean_[o])) * spread(factor_[o])
        for part, mean_, factor_ in zip(
            parts, _split(mean, parts), _split(factor, parts), strict=True
        )
        for o in range(part.shape[0])
    ]
    return functools.reduce(operator.add, terms).astype(parts[0].dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def normalized_sum(
    parts: Parts, weights: PerOperation, epsilon: float
) -> tuple[Images, PerOperation, PerOperation]:
    """Return the weighted sum of normalised operations, means, biased variances.

    No gradient flows through the returned statistics; they are for bookkeeping.
    """
    return _forward(parts, weights, epsilon)[0]


# Mixed operations of one shape share one trace; compiled, the call is inlined.
@functools.partial(jax.jit, static_argnums=2)
def _forward(parts, weights, epsilon):
    mean, var = (
        jnp.concatenate(rows) for rows in zip(*map(moments, parts), strict=True)
    )
    inverse = jax.lax.rsqrt(var + epsilon)
    # Without the barrier XLA recomputes the statistics' arithmetic at every pixel.
    factor = jax.lax.optimization_barrier(inverse * weights)
    y = _weighted_sum(parts, mean, factor)
    return (y, mean, var), (parts, weights, mean, inverse)


def _backward(epsilon, residuals, cotangents):
    del epsilon
    parts, weights, mean, inverse = residuals
    g = cotangents[0]
    count = g.size // g.shape[-1]
    g_mean = jnp.mean(g, (0, 1, 2), dtype=jnp.promote_types(g.dtype, jnp.float32))
    # Of a product's two factors one without its mean is enough, and there is one ``g``.
    g = g[None] - spread(g_mean[None])
    rest = jnp.sum(g, OVER)  # of rounding; times a large mean it would be felt
    gradients, weight_gradients = [], []
    for part, mean_, inverse_, weights_ in zip(
        parts,
        _split(mean, parts),
        _split(inverse, parts),
        _split(weights, parts),
        strict=True,
    ):
        towards_weights = (jnp.sum(g * part, OVER) - rest * mean_) * inverse_
        slope = spread(inverse_ * towards_weights / count)
        dx = (g - (part - spread(mean_)) * slope) * spread(inverse_ * weights_)
        gradients.append(dx.astype(part.dtype))
        weight_gradients.append(towards_weights)
    return tuple(gradients), jnp.concatenate(weight_gradients)


normalized_sum.defvjp(_forward, _backward)
