"""Convolutions and means of small images as products with matrices of pixel pairs.

A window that slides over few pixels is a small dense matrix from pixels to positions,
zeros included. Its product takes more multiplications than a sum of taps and, forward
and backward, a few operations instead of some per tap: where images are small, it is
operations that cost, to compile, to keep and to call (docs/performance.md).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from adarts_jax.nn import windows

# Beyond these a sum of taps is faster.
MOST_PIXELS = 8 * 8
MOST_PRODUCTS = 2**21

Stacked = Float[Array, "op batch height width channel"]
Kernels = tuple[Float[Array, "k k channel"], ...]
Sizes = tuple[int, ...]


def is_best(x: Stacked, stride: int) -> bool:
    """Whether this is the best lowering: for small images, on a CPU."""
    _, batch, height, width, channels = x.shape
    pixels, positions = height * width, math.prod(_output_size(x, stride))
    products = batch * channels * pixels * positions  # of each operation
    is_small = pixels <= MOST_PIXELS and products <= MOST_PRODUCTS
    return is_small and jax.default_backend() == "cpu"


# Layers of one shape share one trace, here and below; compiled, calls are inlined.
@functools.partial(jax.jit, static_argnums=(2, 3))
def convolve(x: Stacked, kernels: Kernels, stride: int, dilation: int) -> Stacked:
    """Convolve every channel with its own filter: see ``depthwise.depthwise_conv``."""
    taps = windows.in_one_frame(kernels)
    ops, k, _, channels = taps.shape
    covered = _covered(k, *x.shape[2:4], stride, dilation)
    # Not copied where the type fits: layers of one size share one constant in memory.
    matrix = jnp.einsum(
        "otc,tr->ocr",
        taps.reshape(ops, k * k, channels).astype(x.dtype),
        covered.reshape(k * k, -1).astype(x.dtype, copy=False),
    ).reshape(ops, channels, *covered.shape[1:])
    return _multiply("obpc,ocpq->obqc", x, matrix, stride)


@functools.partial(jax.jit, static_argnums=(1, 2))
def mean(x: Stacked, sizes: Sizes, stride: int) -> Stacked:
    """Return the mean over real pixels of square windows: see ``pooling.avg_pool``."""
    matrices = []
    for k in sizes:
        covered = _covered(k, *x.shape[2:4], stride, 1).sum(0, dtype=np.float64)
        matrices.append(covered / covered.sum(0))
    matrix = np.stack(matrices).astype(x.dtype)
    return _multiply("obpc,opq->obqc", x, matrix, stride)


def _multiply(axes: str, x: Stacked, matrix: Any, stride: int) -> Stacked:
    """Multiply pixels by matrices; as in NumPy, an op axis of length 1 is repeated."""
    ops, batch, _, _, channels = x.shape
    y = jnp.einsum(axes, x.reshape(ops, batch, -1, channels), matrix)
    return y.reshape(-1, batch, *_output_size(x, stride), channels)


def _output_size(x: Stacked, stride: int) -> tuple[int, ...]:
    """Return rows and columns of the result, the same for every window."""
    return tuple(windows.output_size(length, 1, stride) for length in x.shape[2:4])


@functools.cache
def _covered(
    k: int, height: int, width: int, stride: int, dilation: int
) -> Float[np.ndarray, "tap pixel position"]:
    """Return 1 where a tap of a window at a position is on a pixel, else 0."""

    def along(length: int) -> Bool[np.ndarray, "tap pixel position"]:
        positions = windows.output_size(length, k, stride, dilation)
        tap, pixel, position = np.ogrid[:k, :length, :positions]
        return pixel == stride * position + dilation * (tap - k // 2)

    rows, columns = along(height), along(width)
    both = rows[:, None, :, None, :, None] & columns[:, None, :, None]
    return both.reshape(k * k, height * width, -1).astype(np.float32)
