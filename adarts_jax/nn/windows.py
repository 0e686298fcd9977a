"""Sliding windows along one axis as dense shifted slices, and their adjoint.

A strided slice of an image is slow on every backend, a dense one is nearly free. An
axis is therefore split into its ``stride`` phases (every stride-th element), so that
each tap of a window is one dense slice of one phase.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree, Shaped

Any = Shaped[Array, "..."]


def output_size(size: int, window: int, stride: int, dilation: int = 1) -> int:
    """Positions of a symmetrically padded odd window: ``ceil(size / stride)``."""
    padding = dilation * (window // 2)
    return (size + 2 * padding - dilation * (window - 1) - 1) // stride + 1


def split_phases(x: Any, axis: int, stride: int) -> list[Any]:
    """Return ``x[p::stride]`` along ``axis`` for every phase p, each dense.

    The length of the axis must be a multiple of ``stride``.
    """
    if stride == 1:
        return [x]
    shape = (*x.shape[:axis], x.shape[axis] // stride, stride, *x.shape[axis + 1 :])
    folded = x.reshape(shape)
    return [
        lax.index_in_dim(folded, p, axis + 1, keepdims=False) for p in range(stride)
    ]


def merge_phases(phases: list[Any], axis: int) -> Any:
    """Interleave phases along ``axis``: the inverse of ``split_phases``."""
    if len(phases) == 1:
        return phases[0]
    first = phases[0]
    stacked = jnp.stack(phases, axis=axis + 1)
    return stacked.reshape(*first.shape[:axis], -1, *first.shape[axis + 1 :])


@jax.custom_vjp
def diagonal_pixels(x: Any) -> tuple[Any, Any]:
    """Return ``x[..., ::2, ::2, :]`` and ``x[..., 1::2, 1::2, :]``; sizes are even.

    The gradient is written as a choice: that of a strided slice, a padding between the
    elements, would be an array of its own for each of them.
    """
    return _diagonal_forward(x)[0]


def _diagonal_forward(x):
    folded = fold_blocks(x, 2)
    return (folded[..., 0, :, 0, :], folded[..., 1, :, 1, :]), None


def _diagonal_backward(_, gradients):
    even, odd = (g[..., None, :, None, :] for g in gradients)
    row, column = block_places(even.ndim)
    dx = jnp.where(row != column, 0, jnp.where(row == 0, even, odd))
    return (unfold_blocks(dx),)


diagonal_pixels.defvjp(_diagonal_forward, _diagonal_backward)


def fold_blocks(x: Any, side: int) -> Any:
    """(..., height, width, channel) to (..., rows, side, columns, side, channel).

    Height and width must be multiples of ``side``.
    """
    *others, height, width, channels = x.shape
    return x.reshape(*others, height // side, side, width // side, side, channels)


def unfold_blocks(x: Any) -> Any:
    """The inverse of ``fold_blocks``."""
    *others, rows, side, columns, _, channels = x.shape
    return x.reshape(*others, side * rows, side * columns, channels)


def block_places(ndim: int) -> tuple[Any, Any]:
    """Return row and column of a pixel in its 2 x 2 block, beside folded pixels."""
    number, ones = jnp.arange(2, dtype=jnp.int8), (1,) * (ndim - 4)
    return number.reshape(*ones, 2, 1, 1, 1), number.reshape(*ones, 1, 1, 2, 1)


def phases_to_batch(x: Any, stride: int) -> Any:
    """Make every phase of rows and columns an image of its own.

    (batch, height, width, channel) to (stride^2 * batch, ceil(height / stride), ...);
    zeros fill the last row and column.
    """
    batch, height, width, channels = x.shape
    rows, columns = -(-height // stride), -(-width // stride)
    x = pad_axis(pad_axis(x, 1, 0, rows * stride), 2, 0, columns * stride)
    x = fold_blocks(x, stride).transpose(2, 4, 0, 1, 3, 5)
    return x.reshape(stride**2 * batch, rows, columns, channels)


def batch_to_phases(x: Any, stride: int) -> Any:
    """Put the phases back in their places: the inverse of ``phases_to_batch``."""
    _, rows, columns, channels = x.shape
    x = x.reshape(stride, stride, -1, rows, columns, channels)
    return unfold_blocks(x.transpose(2, 3, 0, 4, 1, 5))


def in_one_frame(kernels: tuple[Any, ...]) -> Any:
    """Stack square kernels (k, k, channel), zeros around all but the largest ones."""
    largest = max(kernel.shape[0] for kernel in kernels)
    margins = [(largest - kernel.shape[0]) // 2 for kernel in kernels]
    return jnp.stack(
        [
            jnp.pad(kernel, ((m, m), (m, m), (0, 0)))
            for kernel, m in zip(kernels, margins, strict=True)
        ]
    )


def pad_axis(x: Any, axis: int, before: int, length: int, value: float = 0.0) -> Any:
    """Give ``axis`` the given ``length``, with ``before`` new elements in front.

    Elements that do not fit are cropped from the end.
    """
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (before, length - before - x.shape[axis], 0)
    return lax.pad(x, jnp.asarray(value, x.dtype), widths)


def pad_for_kernel(
    x: Any, k: int, stride: int, dilation: int = 1, value: float = 0.0
) -> Any:
    """Pad rows and columns of a stack: taps then are slices of its phases.

    Args:
      x: (op, batch, height, width, channel).
      k: side of a symmetric kernel, odd.
      stride: of the convolution.
      dilation: distance between taps.
      value: of the padding.
    """
    for axis in (2, 3):
        positions = output_size(x.shape[axis], k, stride, dilation)
        reach = ((k - 1) * dilation) // stride
        x = pad_axis(x, axis, dilation * (k // 2), stride * (positions + reach), value)
    return x


def kept(padded: PyTree) -> PyTree:
    """Let XLA keep padded arrays on a CPU, where it would pad inside every tap.

    On a GPU the padded copies cost more than that.
    """
    if jax.default_backend() == "cpu":
        return lax.optimization_barrier(padded)
    return padded


def taps(padded: Any, axis: int, *, window: int, stride: int) -> list[Any]:
    """Return one dense slice per tap of a window that slides along a padded axis.

    Element n of tap t is ``padded[n * stride + t]``.
    """
    size = padded.shape[axis] // stride - (window - 1) // stride
    phases = split_phases(padded, axis, stride)
    return [
        lax.slice_in_dim(phases[t % stride], t // stride, t // stride + size, axis=axis)
        for t in range(window)
    ]


def adjoint(
    arrays: tuple[Any, ...],
    axis: int,
    term: Callable[..., Any],
    *,
    window: int,
    stride: int,
    size: int,
    covered: int | None = None,
) -> Any:
    """Gather what each input element receives from the windows that cover it.

    ``dx[n * stride + t - window // 2] += term(t, *(a[n] for a in arrays))``, written
    as one dense sum of slices per phase.

    Args:
      arrays: gradient (and what else ``term`` needs), indexed by window position.
      axis: the axis the window slides along.
      term: ``term(t, *slices)``, the contribution through tap t; zero for zeros.
      window: taps of the window.
      stride: distance of neighbouring positions.
      size: length of the axis before windowing.
      covered: taps in the middle that count; None for all.
    """
    margin = (window - (covered or window)) // 2
    # Windows that cover the padding only are left out where whole phases are.
    first = window // 2 // stride
    rows = -(-(window // 2 + size) // stride) - first
    before = (window - 1) // stride - first
    padded = kept([pad_axis(a, axis, before, before + first + rows) for a in arrays])
    sums = []
    for phase in range(stride):
        total = None
        for t in range(phase, window, stride):
            if not margin <= t < window - margin:
                continue
            start = before + first - t // stride
            slices = [
                lax.slice_in_dim(a, start, start + rows, axis=axis) for a in padded
            ]
            part = term(t, *slices)
            total = part if total is None else total + part
        sums.append(total)
    start = window // 2 - first * stride
    return lax.slice_in_dim(merge_phases(sums, axis), start, start + size, axis=axis)
