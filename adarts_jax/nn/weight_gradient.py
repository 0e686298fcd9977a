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
from jaxtyping import Array, Bool, Float, UInt32

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


class Place(NamedTuple):
    """Where a step of the loop reads and adds.

    Attributes:
      tap: number of the sums.
      op: of the gradients.
      image_op: of the images, 0 where they are shared.
      phase_row: of the images' phases.
      phase_column: likewise.
      part: of the batch.
      top: first row of the images.
      left: first column of the images.
      first_row: of the gradients.
    """

    tap: Any
    op: Any
    image_op: Any
    phase_row: Any
    phase_column: Any
    part: Any
    top: Any
    left: Any
    first_row: Any


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

    def run(add: Callable[[Carry], Carry], sums: Any, steps: int) -> Any:
        del steps
        start = wanted, jnp.uint32(0), sums
        return lax.while_loop(lambda carry: carry[0], add, start)[2]

    return _sum_products(x, g, run, sizes, stride, dilation)


@weight_gradients.defjvp
def _(sizes, stride, dilation, primals, tangents):
    # The same as a loop of fixed length, which has derivatives of both modes.
    x, g, wanted = primals

    def run(add: Callable[[Carry], Carry], sums: Any, steps: int) -> Any:
        start = jnp.array(True), jnp.uint32(0), sums  # noqa: FBT003
        return lax.scan(lambda carry, _: (add(carry), None), start, None, steps)[0][2]

    def of_all(x: Stacked, g: Stacked) -> Any:
        return _sum_products(x, g, run, sizes, stride, dilation)

    both = jax.jvp(of_all, (x, g), (tangents[0], tangents[1]))
    return jax.tree.map(lambda gradient: jnp.where(wanted, gradient, 0), both)


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
    run: Callable[[Callable[[Carry], Carry], Any, int], Any],
    sizes: Sizes,
    stride: int,
    dilation: int,
) -> tuple[Float[Array, "k k channel"], ...]:
    """Add up the products of all taps of all operations, tile by tile.

    The sum over images is written out and that over pixels comes last: XLA's loops run
    through whole vectors in sums of arrays, not in reductions.
    """
    tiling, ends = _tile(g.shape[1:]), [0, *itertools.accumulate(k**2 for k in sizes)]
    places = _places(tiling, sizes, stride, dilation, is_shared=x.shape[0] == 1)
    read = _reader(x, g, tiling, sizes, stride, dilation)
    steps = len(places)

    def add(carry: Carry) -> Carry:
        _, step, sums = carry
        place = Place(*lax.dynamic_index_in_dim(places, step, keepdims=False))
        images, gradients = read(place)
        images = images.astype(sums.dtype)
        total = lax.dynamic_index_in_dim(sums, place.tap, keepdims=False)
        for n in range(tiling.products):
            total = total + images[n] * gradients[n]
        sums = lax.dynamic_update_index_in_dim(sums, total, place.tap, 0)
        # XLA fuses two operations and not one, and one that stands alone in a loop
        # costs its CPU compiler a walk through the whole program.
        is_last = step == steps - 1
        return ~is_last, jnp.where(is_last, 0, step + 1), sums

    shape = (ends[-1], tiling.images, tiling.rows, *g.shape[3:])
    zeros = jnp.zeros(shape, jnp.promote_types(g.dtype, jnp.float32))
    rows = run(add, wait_for(g, zeros), steps).sum((1, 2, 3))
    return tuple(
        rows[a:b].reshape(k, k, -1)
        for k, (a, b) in zip(sizes, itertools.pairwise(ends), strict=True)
    )


def _places(
    tiling: Tiling, sizes: Sizes, stride: int, dilation: int, *, is_shared: bool
) -> UInt32[Array, "step number"]:
    """Return the places of all steps, tile by tile and tap by tap in each.

    A table, because XLA runs a loop of up to eight operations in one thread and a
    longer one through a queue. Unsigned, because dynamic slices then need no case for
    negative numbers.
    """
    taps = sum(k**2 for k in sizes)
    step = jnp.arange(taps * tiling.parts * tiling.bands, dtype=jnp.uint32)
    tap, tile = step % taps, step // taps
    op, row, column = _find_tap(tap, sizes)
    top, left = row * dilation, column * dilation
    first_row = tile % tiling.bands * tiling.rows
    place = Place(
        tap=tap,
        op=op,
        image_op=jnp.zeros_like(op) if is_shared else op,
        phase_row=top % stride,
        phase_column=left % stride,
        part=tile // tiling.bands,
        top=first_row + top // stride,
        left=left // stride,
        first_row=first_row,
    )
    return jnp.stack(place, axis=1)


def _find_tap(tap: Any, sizes: Sizes) -> tuple[Any, Any, Any]:
    """Return operation, row and column of taps, in the frame of the largest kernel."""
    op, first = jnp.zeros_like(tap), jnp.zeros_like(tap)
    side = jnp.full_like(tap, sizes[0])
    ends = itertools.accumulate(k**2 for k in sizes)
    for end, k in zip(ends, sizes[1:], strict=False):
        is_later = tap >= end
        op = op + is_later.astype(op.dtype)
        first = jnp.where(is_later, jnp.uint32(end), first)
        side = jnp.where(is_later, jnp.uint32(k), side)
    margin = (max(sizes) - side) // 2
    row, column = (tap - first) // side, (tap - first) % side
    return op, row + margin, column + margin


def _reader(
    x: Stacked, g: Stacked, tiling: Tiling, sizes: Sizes, stride: int, dilation: int
) -> Callable[[Place], tuple[Any, Any]]:
    """Return what reads images and their gradients at a place."""
    batch = (tiling.parts, tiling.products, tiling.images)
    size = (*batch[1:], tiling.rows, *g.shape[3:])
    padded = windows.pad_for_kernel(wait_for(g, x), max(sizes), stride, dilation)
    phases = windows.fold_blocks(padded, stride).transpose(3, 5, 0, 1, 2, 4, 6)
    phases = phases.reshape(*phases.shape[:3], *batch, *phases.shape[4:])
    gradients = g.reshape(g.shape[0], *batch, *g.shape[2:])
    zero = jnp.uint32(0)

    def read(at: Place) -> tuple[Any, Any]:
        phase = (at.phase_row, at.phase_column, at.image_op, at.part)
        start = (*phase, zero, zero, at.top, at.left, zero)
        images = lax.dynamic_slice(phases, start, (1, 1, 1, 1, *size))
        start = (at.op, at.part, zero, zero, at.first_row, zero, zero)
        found = lax.dynamic_slice(gradients, start, (1, 1, *size))
        return images[0, 0, 0, 0], found[0, 0]

    return read
