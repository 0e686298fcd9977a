"""Max and average pooling with torch semantics: the one place of their lowering.

Windows slide along rows, then along columns, of images padded once: arithmetic and
padding in one loop would leave XLA's CPU loops without vectors. Several window sizes
run as one stack.
XLA's own gradient of max pooling (select-and-scatter) is slow on CPU; here the winning
offset is kept as one byte.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int8

from adarts_jax.nn import pixel_matrix, windows

Images = Float[Array, "batch height width channel"]
Stacked = Float[Array, "op batch height width channel"]
Winners = Int8[Array, "op batch height width channel"]
Sizes = tuple[int, ...]
MeanLowering = Literal["shifted", "matrix"]

AXES = HEIGHT, WIDTH = 2, 3  # of a stack


def max_pool(x: Stacked, *, sizes: Sizes, stride: int) -> Stacked:
    """Maximum over square odd windows, padded with -inf by half a window.

    The gradient goes to the first maximum in row-major order, as in PyTorch.

    Args:
      x: images; an op axis of length 1 is shared by all windows.
      sizes: one window size per operation of the stack.
      stride: 1 or 2.
    """
    return _maximum(x, sizes, stride)


def avg_pool(
    x: Stacked, *, sizes: Sizes, stride: int, lowering: MeanLowering | None = None
) -> Stacked:
    """Mean over square odd windows that counts real pixels only.

    PyTorch's ``AvgPool2d(..., count_include_pad=False)`` per window size.

    Args:
      x: as for ``max_pool``.
      sizes: likewise.
      stride: likewise.
      lowering: "shifted" sums, or products with a "matrix" of pixel pairs (on a CPU the
        default for small images).
    """
    if lowering is None:
        lowering = "matrix" if pixel_matrix.is_best(x, stride) else "shifted"
    if lowering == "matrix":
        return pixel_matrix.mean(x, sizes, stride)
    return _mean(x, sizes, stride)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _maximum(x: Stacked, sizes: Sizes, stride: int) -> Stacked:
    return _first_maximum(x, sizes, stride)[0]


# Layers of one shape share one trace, here and below; compiled, calls are inlined.
@functools.partial(jax.jit, static_argnums=(1, 2))
def _first_maximum(
    x: Stacked, sizes: Sizes, stride: int
) -> tuple[Stacked, tuple[Winners, Winners]]:
    """Return the maximum, and the tap it is at: in every row, then in a column."""
    window, height = max(sizes), x.shape[HEIGHT]
    x = windows.kept(windows.pad_for_kernel(x, window, stride, value=-jnp.inf))
    winners = []
    for axis in (WIDTH, HEIGHT):
        taps = windows.taps(x, axis, window=window, stride=stride)
        shape = (len(sizes), *taps[0].shape[1:])
        x = jnp.full(shape, -jnp.inf, x.dtype)
        winner = jnp.zeros(shape, jnp.int8)
        for t, tap in enumerate(taps):
            better = (tap > x) & _covers(sizes, t)
            x = jnp.where(better, tap, x)
            winner = jnp.where(better, jnp.int8(t), winner)
        winners.append(winner)
    along_row, along_column = winners
    return x, (along_row[:, :, window // 2 :][:, :, :height], along_column)


def _max_forward(x, sizes, stride):
    best, winners = _first_maximum(x, sizes, stride)
    return best, (winners, x.shape[:4])


def _max_backward(sizes, stride, residuals, g):
    (along_row, along_column), (ops, _, height, width) = residuals

    def term(t, part, winner):
        return jnp.where(winner == t, part, 0)

    gather = functools.partial(_gather, term, sizes, stride)
    g = gather((g, along_column), HEIGHT, height, len(sizes))
    return (gather((g, along_row), WIDTH, width, ops),)


_maximum.defvjp(_max_forward, _max_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _mean(x: Stacked, sizes: Sizes, stride: int) -> Stacked:
    return _mean_of_windows(x, sizes, stride)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _mean_of_windows(x: Stacked, sizes: Sizes, stride: int) -> Stacked:
    window, shape = max(sizes), x.shape
    x = windows.kept(windows.pad_for_kernel(x, window, stride))
    for axis in (WIDTH, HEIGHT):
        taps = windows.taps(x, axis, window=window, stride=stride)
        parts = [tap * _covers(sizes, t).astype(x.dtype) for t, tap in enumerate(taps)]
        x = functools.reduce(operator.add, parts)
        x = x * _share(x, axis, shape[axis], sizes, stride)
    return x


def _mean_forward(x, sizes, stride):
    # Not `_mean`, which has no forward derivative of its own.
    return _mean_of_windows(x, sizes, stride), x.shape[:4]


def _mean_backward(sizes, stride, shape, g):
    ops, _, height, width = shape

    def term(t, part):
        is_stack = part.shape[0] > 1
        return part * _covers(sizes, t).astype(part.dtype) if is_stack else part

    gather = functools.partial(_gather, term, sizes, stride)
    g = g * _share(g, HEIGHT, height, sizes, stride)
    g = gather((g,), HEIGHT, height, len(sizes))
    g = g * _share(g, WIDTH, width, sizes, stride)
    return (gather((g,), WIDTH, width, ops),)


_mean.defvjp(_mean_forward, _mean_backward)


def _gather(
    term: Callable[..., Any],
    sizes: Sizes,
    stride: int,
    arrays: tuple[Any, ...],
    axis: int,
    size: int,
    ops: int,
) -> Stacked:
    """Gather what the input of all windows receives along one axis.

    Args:
      term: as for ``windows.adjoint``, of the stack or of one of it.
      sizes: of the windows.
      stride: of the windows.
      arrays: what ``term`` needs, a stack each.
      axis: the axis the windows slide along.
      size: its length before windowing.
      ops: length of the input's op axis, 1 where all windows share it.
    """
    adjoint = functools.partial(
        windows.adjoint, axis=axis, window=max(sizes), stride=stride, size=size
    )
    if ops == len(sizes):
        return adjoint(arrays, term=term)
    # Not a sum over the op axis: XLA would move that into every tap and fuse nothing.
    parts = [
        adjoint(tuple(a[o : o + 1] for a in arrays), term=term, covered=k)
        for o, k in enumerate(sizes)
    ]
    return functools.reduce(operator.add, parts)


def _covers(sizes: Sizes, tap: int) -> Bool[np.ndarray, "op 1 1 1 1"]:
    """Which windows have this tap of the largest one."""
    largest = max(sizes)
    inside = [abs(tap - largest // 2) <= size // 2 for size in sizes]
    return np.array(inside).reshape(-1, 1, 1, 1, 1)


def _share(
    x: Stacked, axis: int, size: int, sizes: Sizes, stride: int
) -> Float[np.ndarray, "op 1 row column 1"]:
    """Return the part of a mean along an axis that one pixel is, beside a stack."""
    shape = [len(sizes), 1, 1, 1, 1]
    shape[axis] = -1
    return (1 / _counts(size, sizes, stride)).reshape(shape).astype(x.dtype)


def _counts(size: int, sizes: Sizes, stride: int) -> Float[np.ndarray, "op position"]:
    """Real pixels under each position of each window."""
    starts = np.arange(windows.output_size(size, 3, stride)) * stride
    half = np.array(sizes)[:, None] // 2
    first = np.maximum(starts - half, 0)
    last = np.minimum(starts + half, size - 1)
    return (last - first + 1).astype(np.float32)
