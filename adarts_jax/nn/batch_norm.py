"""Batch normalisation with torch semantics and a gradient of its own."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

Images = Float[Array, "*op batch height width channel"]
PerChannel = Float[Array, "*op channel"]

EPSILON = 1e-5
MOMENTUM = 0.9


class BatchNorm(nn.Module):
    """Normalise every channel (of every operation) over batch, height and width.

    ``y = scale * (x - mean) / sqrt(var + eps) + bias`` with the biased batch variance
    while training and the running statistics otherwise. The running variance takes in
    the unbiased batch variance, as in PyTorch.

    Statistics and parameters are float32 and so is the arithmetic, whatever the type
    of ``x``; the result has the type of ``x``.

    Attributes:
      affine: whether ``scale`` and ``bias`` are parameters of this layer.
      momentum: share of a running statistic that is KEPT at each update (PyTorch's
        number is the share replaced: its 0.1 is our 0.9).
      epsilon: added to the variance.

    Collections: ``params`` (scale, bias, if affine), ``batch_stats`` (mean, var).
    """

    affine: bool = True
    momentum: float = MOMENTUM
    epsilon: float = EPSILON

    @nn.compact
    def __call__(
        self, x: Images, *, train: bool, scale: PerChannel | None = None
    ) -> Images:
        """Normalise ``x``.

        Args:
          x: images, NHWC.
          train: use and record batch statistics instead of the running ones.
          scale: factor per channel for a layer that is not affine: the weight of an
            operation in a mixed operation. Its gradient then falls out of the
            normalisation's own backward pass for nothing.
        """
        shape = (*x.shape[:-4], x.shape[-1])
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        bias = None
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, shape)
            bias = self.param("bias", nn.initializers.zeros, shape)
        elif scale is None:
            scale = jnp.ones(shape, jnp.float32)
        if train:
            normalized: tuple = normalize(x, scale, self.epsilon)
            y, batch_mean, batch_var = normalized
            if not self.is_initializing():
                self._record(
                    mean, var, batch_mean, batch_var, math.prod(x.shape[-4:-1])
                )
        else:
            factor = scale * jax.lax.rsqrt(var.value + self.epsilon)
            y = (x - _spread(mean.value)) * _spread(factor)
        return (y if bias is None else y + _spread(bias)).astype(x.dtype)

    def _record(
        self,
        mean: nn.Variable,
        var: nn.Variable,
        batch_mean: PerChannel,
        batch_var: PerChannel,
        count: int,
    ) -> None:
        unbiased = batch_var * (count / max(count - 1, 1))
        mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
        var.value = self.momentum * var.value + (1 - self.momentum) * unbiased


def _spread(values: PerChannel) -> Images:
    """Make one value per (operation and) channel broadcast against images."""
    return values[..., None, None, None, :]


_OVER = (-4, -3, -2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def normalize(
    x: Images, scale: PerChannel, epsilon: float
) -> tuple[Images, PerChannel, PerChannel]:
    """Return ``scale * (x - mean) / sqrt(var + eps)``, mean and biased variance.

    No gradient flows through the returned statistics; they are for bookkeeping.
    """
    return _normalize_forward(x, scale, epsilon)[0]


def _normalize_forward(x, scale, epsilon):
    mean = jnp.mean(x, _OVER, dtype=jnp.promote_types(x.dtype, scale.dtype))
    var = jnp.mean(jnp.square(x - _spread(mean)), _OVER)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (x - _spread(mean)) * _spread(inverse * scale)
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _normalize_backward(epsilon, residuals, cotangents):
    del epsilon
    x, scale, mean, inverse = residuals
    g = cotangents[0]
    count = math.prod(x.shape[-4:-1])
    centred = x - _spread(mean)
    g_mean = jnp.mean(g, _OVER, dtype=mean.dtype)
    scale_gradient = jnp.sum(g * centred, _OVER) * inverse
    slope = _spread(inverse * scale_gradient / count)
    dx = (g - _spread(g_mean) - centred * slope) * _spread(inverse * scale)
    return dx.astype(x.dtype), scale_gradient.astype(scale.dtype)


normalize.defvjp(_normalize_forward, _normalize_backward)
