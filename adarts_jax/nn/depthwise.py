"""Depthwise convolution: the one place where its lowering is chosen.

XLA's grouped convolution is slow on CPU, forward and towards the input (factor 20 to
60 against shifted multiply-adds, see docs/performance.md) and towards the weights,
where it does the work of a dense one. Of small images it is a product with a matrix.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from adarts_jax.nn import pixel_matrix, windows
from adarts_jax.nn.weight_gradient import weight_gradients

Lowering = Literal["shifted", "matrix", "grouped"]

Stacked = Float[Array, "op batch height width channel"]
Kernels = tuple[Float[Array, "k k channel"], ...]

_is_wanted: contextvars.ContextVar[Bool[Array, ""] | bool] = contextvars.ContextVar(
    "gradients towards kernels are wanted", default=True
)


@contextlib.contextmanager
def weight_gradients_if(wanted: Bool[Array, ""]) -> Iterator[None]:
    """Let gradients towards kernels be zero, and cost nothing, if they are not wanted.

    For programs that serve several purposes: those gradients are a fifth of a pass on a
    CPU. Holds for what is traced inside; ``wanted`` may be traced. Only the "shifted"
    lowering takes note, the others compute them in any case.
    """
    token = _is_wanted.set(wanted)
    try:
        yield
    finally:
        _is_wanted.reset(token)


def depthwise_conv(
    x: Stacked,
    kernels: Kernels,
    *,
    stride: int = 1,
    dilation: int = 1,
    lowering: Lowering | None = None,
) -> Stacked:
    """Convolve every channel with its own filter, for a stack of operations.

    ``y[o, b, h, w, c] = sum_ij x[o, b, s h + d i - p, s w + d j - p, c] k_o[i, j, c]``
    with ``p = d (k // 2)`` and zero padding: PyTorch's ``Conv2d(groups=C, padding=p,
    bias=False)`` for each operation o.

    Args:
      x: images; an op axis of length 1 is shared by all operations.
      kernels: one odd square filter bank per operation; sizes may differ.
      stride: 1 or 2; the output has ``ceil(size / stride)`` pixels.
      dilation: distance between taps.
      lowering: "shifted" multiply-adds, products with a "matrix" of pixel pairs (on a
        CPU the default for small images), or XLA's "grouped" convolution (elsewhere).
    """
    lowering = lowering or _best_lowering(x, stride)
    if lowering == "matrix":
        return pixel_matrix.convolve(x, kernels, stride, dilation)
    if lowering == "shifted":
        wanted = jnp.asarray(_is_wanted.get())
        return _traced_once(x, kernels, wanted, stride, dilation)
    images = [x[min(o, x.shape[0] - 1)] for o in range(len(kernels))]
    return jnp.stack(
        [
            _grouped(image, kernel, stride, dilation)
            for image, kernel in zip(images, kernels, strict=True)
        ]
    )


def _best_lowering(x: Stacked, stride: int) -> Lowering:
    if pixel_matrix.is_best(x, stride):
        return "matrix"
    return "shifted" if jax.default_backend() == "cpu" else "grouped"


def _grouped(
    x: Float[Array, "batch height width channel"],
    kernel: Float[Array, "k k channel"],
    stride: int,
    dilation: int,
) -> Float[Array, "batch height width channel"]:
    """Convolve with the library of the device, which is best without dilation.

    The gradient towards the kernel of a dilated one is no case of its own in XLA: it
    becomes a convolution with a filter as large as the image.
    """
    height, width = x.shape[1:3]
    if dilation > 1 and stride == dilation:
        return _grouped(x[:, ::stride, ::stride], kernel, 1, 1)
    if dilation > 1 and stride == 1:
        y = _grouped(windows.phases_to_batch(x, dilation), kernel, 1, 1)
        return windows.batch_to_phases(y, dilation)[:, :height, :width]
    k, _, channels = kernel.shape
    padding = dilation * (k // 2)
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None, :].astype(x.dtype),
        (stride, stride),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        feature_group_count=channels,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _weights_per_tap(kernels: Kernels) -> list[Float[Array, "op 1 1 1 channel"]]:
    """Return the taps, row by row, of all filters in the largest one's frame."""
    weights = windows.in_one_frame(kernels)
    ops, largest, _, channels = weights.shape
    weights = weights.reshape(ops, largest**2, 1, 1, channels)
    return [lax.slice_in_dim(weights, t, t + 1, axis=1) for t in range(largest**2)]


def _window(
    x: Stacked, top: int, left: int, size: tuple[int, int]
) -> Float[Array, "op batch height width channel"]:
    ops, batch, _, _, channels = x.shape
    end = (ops, batch, top + size[0], left + size[1], channels)
    return lax.slice(x, (0, 0, top, left, 0), end)


# Layers of one shape share one trace; compiled, the call is inlined.
@functools.partial(jax.jit, static_argnums=(2, 3))
def _sum_of_taps(x: Stacked, kernels: Kernels, stride: int, dilation: int) -> Stacked:
    weights = _weights_per_tap(kernels)
    k = math.isqrt(len(weights))
    height, width = (windows.output_size(n, k, stride, dilation) for n in x.shape[2:4])
    padded = windows.pad_for_kernel(x, k, stride, dilation)
    rows = windows.split_phases(padded, 2, stride)
    phases = [windows.split_phases(row, 3, stride) for row in rows]
    # Without the barrier XLA recomputes the padding inside every tap.
    phases = lax.optimization_barrier(phases)
    total = None
    for i in _taps_on_pixels(k, dilation, x.shape[2], height, stride):
        for j in _taps_on_pixels(k, dilation, x.shape[3], width, stride):
            a, b = i * dilation, j * dilation
            phase = phases[a % stride][b % stride]
            top, left = a // stride, b // stride
            tap = _window(phase, top, left, (height, width))
            part = tap * weights[i * k + j]
            total = part if total is None else total + part
    assert total is not None
    return total.astype(x.dtype)


def _taps_on_pixels(
    k: int, dilation: int, size: int, positions: int, stride: int
) -> list[int]:
    """Return the taps along an axis that meet more than padding: not all if short."""
    first = [dilation * (tap - k // 2) for tap in range(k)]
    last = [pixel + stride * (positions - 1) for pixel in first]
    return [tap for tap in range(k) if first[tap] < size and last[tap] >= 0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _shifted(
    x: Stacked, kernels: Kernels, wanted: Bool[Array, ""], stride: int, dilation: int
) -> Stacked:
    del wanted
    return _sum_of_taps(x, kernels, stride, dilation)


def _shifted_forward(x, kernels, wanted, stride, dilation):
    return _sum_of_taps(x, kernels, stride, dilation), (x, kernels, wanted)


def _shifted_backward(stride, dilation, residuals, g):
    x, kernels, wanted = residuals
    size = x.shape[2:4]
    if x.shape[0] == len(kernels):
        dx = _input_gradient(g, kernels, size, stride, dilation)
    else:
        dx = sum(
            _input_gradient(g[o : o + 1], kernels[o : o + 1], size, stride, dilation)
            for o in range(len(kernels))
        )
    sizes = tuple(kernel.shape[0] for kernel in kernels)
    gradients = weight_gradients(x, g, wanted, sizes, stride, dilation)
    return dx, gradients, None


_shifted.defvjp(_shifted_forward, _shifted_backward)


_traced_once = jax.jit(_shifted, static_argnums=(3, 4))


def _input_gradient(
    g: Stacked, kernels: Kernels, size: tuple[int, int], stride: int, dilation: int
) -> Stacked:
    """Transposed convolution in gather form, one dense sum per phase."""
    if stride == 1:
        flipped = tuple(kernel[::-1, ::-1] for kernel in kernels)
        # Not `_shifted`: a gradient with a rule of its own has no forward derivative.
        return _sum_of_taps(g, flipped, 1, dilation)
    weights = _weights_per_tap(kernels)
    k = math.isqrt(len(weights))
    reach, padding = ((k - 1) * dilation) // stride, dilation * (k // 2)
    spread = ((0, 0), (0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = lax.optimization_barrier(jnp.pad(g, spread))
    height, width = g.shape[2] + reach, g.shape[3] + reach
    rows_of_kernel = _taps_on_pixels(k, dilation, size[0], g.shape[2], stride)
    columns_of_kernel = _taps_on_pixels(k, dilation, size[1], g.shape[3], stride)

    def phase(p: int, q: int) -> Stacked:
        total = jnp.zeros((*g.shape[:2], height, width, g.shape[4]), g.dtype)
        for i in (i for i in rows_of_kernel if (i * dilation) % stride == p):
            for j in (j for j in columns_of_kernel if (j * dilation) % stride == q):
                top = reach - (i * dilation) // stride
                left = reach - (j * dilation) // stride
                tap = _window(padded, top, left, (height, width))
                total = total + tap * weights[i * k + j]
        return total

    rows = [
        windows.merge_phases([phase(p, q) for q in range(stride)], 3)
        for p in range(stride)
    ]
    merged = windows.merge_phases(rows, 2).astype(g.dtype)
    return merged[:, :, padding : padding + size[0], padding : padding + size[1]]
