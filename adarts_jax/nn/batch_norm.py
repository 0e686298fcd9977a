"""Batch normalisation with torch semantics and a gradient of its own."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.nn.relu import relu, where_positive

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
      rectify: whether a ReLU follows.
      momentum: share of a running statistic that is KEPT at each update (PyTorch's
        number is the share replaced: its 0.1 is our 0.9).
      epsilon: added to the variance.

    Collections: ``params`` (scale, bias, if affine), ``batch_stats`` (mean, var).
    """

    affine: bool = True
    rectify: bool = False
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
        in_one = train and self.rectify and not self.affine
        if train:
            if in_one:
                results: tuple = normalize_and_rectify(x, self.epsilon)
            else:
                results = normalize(x, scale, self.epsilon)
            y, batch_mean, batch_var = results
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
        y = (y if bias is None else y + spread(bias)).astype(x.dtype)
        return relu(y) if self.rectify and not in_one else y


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
    scale_gradient = jnp.sum(g * (x - spread(mean)), OVER) * inverse
    dx = _towards_input(g, scale_gradient, residuals)
    return dx, scale_gradient.astype(scale.dtype)


normalize.defvjp(_normalize_forward, _normalize_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def normalize_and_rectify(
    x: Images, epsilon: float
) -> tuple[Images, PerChannel, PerChannel]:
    """Return the ReLU of ``normalize`` with scale 1, mean and biased variance.

    Its gradient needs a sum of products with the normalized images. Where the ReLU
    cut off there is nothing to add, elsewhere they are the result: nothing has to be
    computed again, and the ReLU needs no mask.
    """
    return _rectified_forward(x, epsilon)[0]


def _rectified_forward(x, epsilon):
    ones = jnp.ones((*x.shape[:-4], x.shape[-1]), jnp.float32)
    (y, mean, var), residuals = _normalize_forward(x, ones, epsilon)
    y = jnp.maximum(y, 0)
    return (y, mean, var), (y, residuals)


def _rectified_backward(epsilon, residuals, cotangents):
    del epsilon
    y, of_normalize = residuals
    g = where_positive(y, cotangents[0])
    products = jnp.sum(g * y, OVER, dtype=jnp.promote_types(y.dtype, jnp.float32))
    return (_towards_input(g, products, of_normalize),)


normalize_and_rectify.defvjp(_rectified_forward, _rectified_backward)


def _towards_input(
    g: Images, products: PerChannel, residuals: tuple[Images | PerChannel, ...]
) -> Images:
    """Return the gradient towards ``x`` of ``normalize``.

    Args:
      g: gradient towards the result.
      products: sum of ``g`` times the normalized images.
      residuals: of ``normalize``.
    """
    x, scale, mean, inverse = residuals
    count = math.prod(x.shape[-4:-1])
    g_mean = jnp.mean(g, OVER, dtype=mean.dtype)
    slope = spread(inverse * products / count)
    dx = (g - spread(g_mean) - (x - spread(mean)) * slope) * spread(inverse * scale)
    return dx.astype(x.dtype)
