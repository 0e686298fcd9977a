"""Max and average pooling with torch semantics: the one place of their lowering.

Windows slide along rows, then along columns. Several window sizes run as one stack.
XLA's own gradient of max pooling (select-and-scatter) is slow on CPU; here the winning
offset is kept as one byte.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int8

from adarts_jax.nn import windows

Images = Float[Array, "batch height width channel"]
Stacked = Float[Array, "op batch height width channel"]
Sizes = tuple[int, ...]

HEIGHT, WIDTH = 2, 3  # axes of a stack


def max_pool(x: Stacked, *, sizes: Sizes, stride: int) -> Stacked:
    """Maximum over square odd windows, padded with -inf by half a window.

    The gradient goes to the first maximum in row-major order, as in PyTorch.

    Args:
      x: images; an op axis of length 1 is shared by all windows.
      sizes: one window size per operation of the stack.
      stride: 1 or 2.
    """
    return _max_along(_max_along(x, WIDTH, sizes, stride), HEIGHT, sizes, stride)


def avg_pool(x: Stacked, *, sizes: Sizes, stride: int) -> Stacked:
    """Mean over square odd windows that counts real pixels only.

    PyTorch's ``AvgPool2d(..., count_include_pad=False)`` per window size.
    """
    for axis in (WIDTH, HEIGHT):
        counts = _counts(x.shape[axis], sizes, stride).astype(x.dtype)
        shape = [len(sizes), 1, 1, 1, 1]
        shape[axis] = counts.shape[1]
        total: Stacked = _sum_along(x, axis, sizes, stride)
        x = total * jnp.asarray(1 / counts).reshape(shape)
    return x


def max_pool_2x2(x: Images) -> Images:
    """Maximum over 2 x 2 blocks, stride 2; an odd last row or column is dropped."""
    return _block_maximum(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2])


@jax.custom_vjp
def _block_maximum(x: Images) -> Images:
    return _block_maximum_forward(x)[0]


def _block_maximum_forward(x):
    # A tie goes to the first, in rows as in columns.
    blocks = windows.fold_blocks(x, 2)
    left, right = blocks[..., 0, :], blocks[..., 1, :]
    is_right = right > left
    row = jnp.where(is_right, right, left)
    is_lower = row[:, :, 1] > row[:, :, 0]
    column = jnp.where(is_lower, is_right[:, :, 1], is_right[:, :, 0])
    winner = 2 * is_lower.astype(jnp.int8) + column.astype(jnp.int8)
    return jnp.where(is_lower, row[:, :, 1], row[:, :, 0]), winner


def _block_maximum_backward(winner, g):
    winner, g = winner[:, :, None, :, None], g[:, :, None, :, None]
    row, column = windows.block_places(g.ndim)
    return (windows.unfold_blocks(jnp.where(winner == 2 * row + column, g, 0)),)


_block_maximum.defvjp(_block_maximum_forward, _block_maximum_backward)


def _covers(sizes: Sizes, tap: int) -> Bool[np.ndarray, "op 1 1 1 1"]:
    """Which windows have this tap of the largest one."""
    largest = max(sizes)
    inside = [abs(tap - largest // 2) <= size // 2 for size in sizes]
    return np.array(inside).reshape(-1, 1, 1, 1, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_along(x: Stacked, axis: int, sizes: Sizes, stride: int) -> Stacked:
    return _first_maximum(x, axis, sizes, stride)[0]


# Layers of one shape share one trace, here and below; compiled, calls are inlined.
@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _first_maximum(
    x: Stacked, axis: int, sizes: Sizes, stride: int
) -> tuple[Stacked, Int8[Array, "op batch height width channel"]]:
    """Return the maximum and the tap it is at."""
    taps = windows.taps(x, axis, window=max(sizes), stride=stride, value=-jnp.inf)
    shape = (len(sizes), *taps[0].shape[1:])
    best = jnp.full(shape, -jnp.inf, x.dtype)
    winner = jnp.zeros(shape, jnp.int8)
    for t, tap in enumerate(taps):
        better = (tap > best) & _covers(sizes, t)
        best = jnp.where(better, tap, best)
        winner = jnp.where(better, jnp.int8(t), winner)
    return best, winner


def _max_forward(x, axis, sizes, stride):
    best, winner = _first_maximum(x, axis, sizes, stride)
    return best, (winner, x.shape[0], x.shape[axis])


def _max_backward(axis, sizes, stride, residuals, g):
    winner, ops, size = residuals
    dx = windows.adjoint(
        (g, winner),
        axis,
        lambda t, part, won: jnp.where(won == t, part, 0),
        window=max(sizes),
        stride=stride,
        size=size,
    )
    return (windows.sum_shared(dx, ops),)


_max_along.defvjp(_max_forward, _max_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _sum_along(x: Stacked, axis: int, sizes: Sizes, stride: int) -> Stacked:
    return _sum_of_windows(x, axis, sizes, stride)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _sum_of_windows(x: Stacked, axis: int, sizes: Sizes, stride: int) -> Stacked:
    taps = windows.taps(x, axis, window=max(sizes), stride=stride)
    parts = [tap * _covers(sizes, t).astype(x.dtype) for t, tap in enumerate(taps)]
    return functools.reduce(operator.add, parts)


def _sum_forward(x, axis, sizes, stride):
    # Not `_sum_along`, which has no forward derivative of its own.
    return _sum_of_windows(x, axis, sizes, stride), (x.shape[0], x.shape[axis])


def _sum_backward(axis, sizes, stride, residuals, g):
    ops, size = residuals
    dx = windows.adjoint(
        (g,),
        axis,
        lambda t, part: part * _covers(sizes, t).astype(g.dtype),
        window=max(sizes),
        stride=stride,
        size=size,
    )
    return (windows.sum_shared(dx, ops),)


_sum_along.defvjp(_sum_forward, _sum_backward)


def _counts(size: int, sizes: Sizes, stride: int) -> Float[np.ndarray, "op position"]:
    """Real pixels under each position of each window."""
    starts = np.arange(windows.output_size(size, 3, stride)) * stride
    half = np.array(sizes)[:, None] // 2
    first = np.maximum(starts - half, 0)
    last = np.minimum(starts + half, size - 1)
    return (last - first + 1).astype(np.float32)
