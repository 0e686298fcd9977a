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
OVER = (-4, -3, -2)  # batch, height, width


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
    def __call__(self, x: Images, *, train: bool) -> Images:
        """Normalise ``x``.

        Args:
          x: images, NHWC.
          train: use and record batch statistics instead of the running ones.
        """
        shape = (*x.shape[:-4], x.shape[-1])
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale, bias = jnp.ones(shape, jnp.float32), None
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, shape)
            bias = self.param("bias", nn.initializers.zeros, shape)
        if train:
            normalized: tuple = normalize(x, scale, self.epsilon)
            y, batch_mean, batch_var = normalized
            if not self.is_initializing():
                mean.value, var.value = running_update(
                    (mean.value, var.value),
                    (batch_mean, batch_var),
                    math.prod(x.shape[-4:-1]),
                    self.momentum,
                )
        else:
            factor = scale * jax.lax.rsqrt(var.value + self.epsilon)
            y = (x - spread(mean.value)) * spread(factor)
        return (y if bias is None else y + spread(bias)).astype(x.dtype)


def moments(x: Images) -> tuple[PerChannel, PerChannel]:
    """Return mean and biased variance, at least float32.

    In two passes on a CPU, where one takes as long; elsewhere in one pass.
    """
    precise = jnp.promote_types(x.dtype, jnp.float32)
    if jax.default_backend() != "cpu":
        return moments_in_one_pass(x.astype(precise))
    mean = jnp.mean(x, OVER, dtype=precise)
    return mean, jnp.mean(jnp.square(x - spread(mean)), OVER)


def moments_in_one_pass(x: Images) -> tuple[PerChannel, PerChannel]:
    """Return mean and biased variance from sums over distances from the first pixel.

    ``E[x^2] - E[x]^2`` by itself loses what the mean is larger than the deviation. The
    first pixel being one of the n values, ``(pixel - mean)^2 <= n * var``: the relative
    error of the variance is of the order of n rounding errors at worst, and commonly
    of one or two.
    """
    origin = jax.lax.stop_gradient(x[..., :1, :1, :1, :])
    distance = x - origin
    shift = jnp.mean(distance, OVER)
    var = jnp.mean(jnp.square(distance), OVER) - jnp.square(shift)
    return origin[..., 0, 0, 0, :] + shift, jnp.maximum(var, 0)


def running_update(
    running: tuple[PerChannel, PerChannel],
    batch: tuple[PerChannel, PerChannel],
    count: int,
    momentum: float = MOMENTUM,
) -> tuple[PerChannel, PerChannel]:
    """Return running mean and variance after a batch.

    Args:
      running: mean and variance so far.
      batch: mean and biased variance of the batch; the unbiased one is recorded.
      count: values per channel.
      momentum: share that is kept.
    """
    unbiased = batch[1] * (count / max(count - 1, 1))
    return (
        momentum * running[0] + (1 - momentum) * batch[0],
        momentum * running[1] + (1 - momentum) * unbiased,
    )


def spread(values: PerChannel) -> Images:
    """Make one value per (operation and) channel broadcast against images."""
    return values[..., None, None, None, :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def normalize(
    x: Images, scale: PerChannel, epsilon: float
) -> tuple[Images, PerChannel, PerChannel]:
    """Return ``scale * (x - mean) / sqrt(var + eps)``, mean and biased variance.

    No gradient flows through the returned statistics; they are for bookkeeping.
    """
    return _normalize_forward(x, scale, epsilon)[0]


# Layers of one shape share one trace; compiled, the call is inlined.
@functools.partial(jax.jit, static_argnums=2)
def _normalize_forward(x, scale, epsilon):
    mean, var = moments(x)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (x - spread(mean)) * spread(inverse * scale)
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _normalize_backward(epsilon, residuals, cotangents):
    del epsilon
    x, scale, mean, inverse = residuals
    g = cotangents[0]
    count = math.prod(x.shape[-4:-1])
    centred = x - spread(mean)
    g_mean = jnp.mean(g, OVER, dtype=mean.dtype)
    scale_gradient = jnp.sum(g * centred, OVER) * inverse
    slope = spread(inverse * scale_gradient / count)
    dx = (g - spread(g_mean) - centred * slope) * spread(inverse * scale)
    return dx.astype(x.dtype), scale_gradient.astype(scale.dtype)


normalize.defvjp(_normalize_forward, _normalize_backward)
