"""Gradient of a depthwise convolution towards its kernels, for CPUs.

XLA's own does the work of a dense convolution. Here a loop adds up the products of one
tap and a tile of a few images at a time (docs/performance.md).
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from adarts_jax.nn import windows
from adarts_jax.nn.waiting import wait_for

PRODUCTS_AT_ONCE = 8  # XLA does not fuse a sum of 16
TILE = 8192  # sums at once: with the images they need they stay in a core's cache

Stacked = Float[Array, "op batch height width channel"]
Carry = tuple[Any, Any, Any]  # is there more, number of the step, sums
Sizes = tuple[int, ...]


class Tiling(NamedTuple):
    """What one step of the loop adds up.

    Attributes:
      products: per sum.
      images: sums of how many images stand side by side.
      rows: of an image.
      parts: of the batch, ``products * images`` each.
      bands: of an image, ``rows`` each.
    """

    products: int
    images: int
    rows: int
    parts: int
    bands: int


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4, 5))
def weight_gradients(
    x: Stacked,
    g: Stacked,
    wanted: Bool[Array, ""],
    sizes: Sizes,
    stride: int,
    dilation: int,
) -> tuple[Float[Array, "k k channel"], ...]:
    """Return the gradients towards all kernels of a stack, at least in float32.

    Args:
      x: images that were convolved; an op axis of length 1 is shared.
      g: gradient towards the result.
      wanted: else they are zero, and cost nothing.
      sizes: side of the kernel of every operation, odd.
      stride: of the convolution, 1 or 2.
      dilation: of the convolution.
    """

    def run(add: Callable[[Carry], Carry], steps: int) -> Any:
        del steps
        start = _start(wanted, g, sizes)
        return lax.while_loop(lambda carry: carry[0], add, start)

    return _sum_products(x, g, run, sizes, stride, dilation)


@weight_gradients.defjvp
def _(sizes, stride, dilation, primals, tangents):
    # The same as a loop of fixed length, which has derivatives of both modes.
    x, g, wanted = primals

    def run(add: Callable[[Carry], Carry], steps: int) -> Any:
        start = _start(jnp.array(True), g, sizes)  # noqa: FBT003
        return lax.scan(lambda carry, _: (add(carry), None), start, None, steps)[0]

    def of_all(x: Stacked, g: Stacked) -> Any:
        return _sum_products(x, g, run, sizes, stride, dilation)

    both = jax.jvp(of_all, (x, g), (tangents[0], tangents[1]))
    return jax.tree.map(lambda gradient: jnp.where(wanted, gradient, 0), both)


def _start(is_more: Bool[Array, ""], g: Stacked, sizes: Sizes) -> Carry:
    precise = jnp.promote_types(g.dtype, jnp.float32)
    tiling = _tile(g.shape[1:])
    shape = (_count_taps(sizes), tiling.images, tiling.rows, *g.shape[3:])
    # An unsigned counter: dynamic slices need no case for negative ones.
    return is_more, jnp.uint32(0), wait_for(g, jnp.zeros(shape, precise))


def _count_taps(sizes: Sizes) -> int:
    return sum(k**2 for k in sizes)


def _tile(shape: tuple[int, ...]) -> Tiling:
    batch, height, width, channels = shape
    products = _largest_divisor(batch, PRODUCTS_AT_ONCE)
    images = _largest_divisor(batch // products, TILE // (height * width * channels))
    rows = _largest_divisor(height, TILE // (width * channels))
    return Tiling(products, images, rows, batch // (products * images), height // rows)


def _largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor up to a limit, 1 if that is less."""
    return max(n for n in range(1, max(limit, 1) + 1) if number % n == 0)


def _sum_products(
    x: Stacked,
    g: Stacked,
    run: Callable[[Callable[[Carry], Carry], int], Carry],
    sizes: Sizes,
    stride: int,
    dilation: int,
) -> tuple[Float[Array, "k k channel"], ...]:
    """Add up the products of all taps of all operations, tile by tile.

    The sum over images is written out and that over pixels comes last: XLA's loops run
    through whole vectors in sums of arrays, not in reductions.
    """
    tiling, taps = _tile(g.shape[1:]), _count_taps(sizes)
    read = _reader(x, g, tiling, sizes, stride, dilation)
    tiles = tiling.parts * tiling.bands

    def add(carry: Carry) -> Carry:
        _, step, sums = carry
        tap, tile = _divide(step, taps, tiles)
        images, gradients = read(tap, tile)
        images = images.astype(sums.dtype)
        total = lax.dynamic_index_in_dim(sums, tap, keepdims=False)
        for n in range(tiling.products):
            total = total + images[n] * gradients[n]
        sums = lax.dynamic_update_index_in_dim(sums, total, tap, 0)
        is_last = step == taps * tiles - 1
        return ~is_last, jnp.where(is_last, 0, step + 1), sums

    *_, sums = run(add, taps * tiles)
    rows = sums.sum((1, 2, 3))
    ends = [0, *itertools.accumulate(k**2 for k in sizes)]
    return tuple(
        rows[a:b].reshape(k, k, -1)
        for k, (a, b) in zip(sizes, itertools.pairwise(ends), strict=True)
    )


def _reader(
    x: Stacked, g: Stacked, tiling: Tiling, sizes: Sizes, stride: int, dilation: int
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return what reads, for a tap and a tile, images and their gradients."""
    batch = (tiling.parts, tiling.products, tiling.images)
    size = (tiling.rows, *g.shape[3:])
    padded = windows.pad_for_kernel(wait_for(g, x), max(sizes), stride, dilation)
    phases = windows.fold_blocks(padded, stride).transpose(3, 5, 0, 1, 2, 4, 6)
    phases = phases.reshape(*phases.shape[:3], *batch, *phases.shape[4:])
    gradients = g.reshape(g.shape[0], *batch, *g.shape[2:])
    zero = jnp.uint32(0)

    def read(tap: Any, tile: Any) -> tuple[Any, Any]:
        op, row, column = _find_tap(tap, sizes)
        band, part = _divide(tile, tiling.bands, tiling.parts)
        first_row = band * tiling.rows
        top, left = row * dilation, column * dilation
        source = (top % stride, left % stride, zero if x.shape[0] == 1 else op, part)
        corner = (zero, zero, first_row + top // stride, left // stride, zero)
        images = lax.dynamic_slice(
            phases, (*source, *corner), (1, 1, 1, 1, *batch[1:], *size)
        )
        start = (op, part, zero, zero, first_row, zero, zero)
        found = lax.dynamic_slice(gradients, start, (1, 1, *batch[1:], *size))
        return images[0, 0, 0, 0], found[0, 0]

    return read


def _divide(number: Any, inner: int, outer: int) -> tuple[Any, Any]:
    """Return the place in the inner loop and the one in the outer loop.

    The bounds change nothing. But XLA fuses two operations and not one, and one that
    stands alone in a loop costs its CPU compiler a walk through the whole program.
    """
    if outer == 1:
        return number, jnp.uint32(0)
    place = jnp.minimum(number % inner, inner - 1)
    return place, jnp.minimum(number // inner, outer - 1)


def _find_tap(tap: Any, sizes: Sizes) -> tuple[Any, Any, Any]:
    """Return operation, row and column of a tap, in the frame of the largest kernel."""
    op, first, side = jnp.uint32(0), jnp.uint32(0), jnp.uint32(sizes[0])
    ends = itertools.accumulate(k**2 for k in sizes)
    for end, k in zip(ends, sizes[1:], strict=False):
        is_later = tap >= end
        op = op + is_later.astype(op.dtype)
        first = jnp.where(is_later, jnp.uint32(end), first)
        side = jnp.where(is_later, jnp.uint32(k), side)
    margin = (max(sizes) - side) // 2
    row, column = (tap - first) // side, (tap - first) % side
    return op, row + margin, column + margin
