"""Gradient of a depthwise convolution towards its kernel, for CPUs.

XLA's own does the work of a dense convolution. Here a loop adds up the products of one
tap and a few images at a time (docs/performance.md).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from adarts_jax.nn import windows
from adarts_jax.nn.waiting import wait_for

IMAGES_AT_ONCE = 8  # XLA does not fuse a sum of 16

Images = Float[Array, "batch height width channel"]
Carry = tuple[Any, Any, Any]  # is there more, number of the step, sums


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4, 5))
def weight_gradient(
    x: Images,
    g: Images,
    wanted: Bool[Array, ""],
    k: int,
    stride: int,
    dilation: int,
) -> Float[Array, "k k channel"]:
    """Return the gradient towards a kernel of side ``k``, at least in float32.

    Args:
      x: images that were convolved.
      g: gradient towards the result.
      wanted: else it is zero, and costs nothing.
      k: odd.
      stride: of the convolution, 1 or 2.
      dilation: of the convolution.
    """

    def run(add: Callable[[Carry], Carry], steps: int) -> Any:
        del steps
        start = _start(wanted, g, k)
        return lax.while_loop(lambda carry: carry[0], add, start)

    return _sum_products(x, g, run, k, stride, dilation)


@weight_gradient.defjvp
def _(k, stride, dilation, primals, tangents):
    # The same as a loop of fixed length, which has derivatives of both modes.
    x, g, wanted = primals

    def run(add: Callable[[Carry], Carry], steps: int) -> Any:
        start = _start(jnp.array(True), g, k)  # noqa: FBT003
        return lax.scan(lambda carry, _: (add(carry), None), start, None, steps)[0]

    def of_all(x: Images, g: Images) -> Any:
        return _sum_products(x, g, run, k, stride, dilation)

    value, tangent = jax.jvp(of_all, (x, g), (tangents[0], tangents[1]))
    return jnp.where(wanted, value, 0), jnp.where(wanted, tangent, 0)


def _start(is_more: Bool[Array, ""], g: Images, k: int) -> Carry:
    precise = jnp.promote_types(g.dtype, jnp.float32)
    # An unsigned counter: dynamic slices need no case for negative ones.
    sums = wait_for(g, jnp.zeros((k**2, *g.shape[1:]), precise))
    return is_more, jnp.uint32(0), sums


def _sum_products(
    x: Images,
    g: Images,
    run: Callable[[Callable[[Carry], Carry], int], Carry],
    k: int,
    stride: int,
    dilation: int,
) -> Float[Array, "k k channel"]:
    """Add up the products of all taps.

    The sum over images is written out and that over pixels comes last: XLA's loops run
    through whole vectors in sums of arrays, not in reductions.
    """
    batch, height, width, channels = g.shape
    x = wait_for(g, x)
    reach, padding = ((k - 1) * dilation) // stride, dilation * (k // 2)
    padded = windows.pad_axis(x, 1, padding, stride * (height + reach))
    padded = windows.pad_axis(padded, 2, padding, stride * (width + reach))
    rows = windows.split_phases(padded, 1, stride)
    phases = jnp.stack([jnp.stack(windows.split_phases(r, 2, stride)) for r in rows])
    count = max(n for n in range(1, IMAGES_AT_ONCE + 1) if batch % n == 0)
    parts = batch // count
    phases = phases.reshape(stride, stride, -1, count, *phases.shape[3:])
    gradients = g.reshape(-1, count, height, width, channels)

    def add(carry: Carry) -> Carry:
        _, step, sums = carry
        tap, part = _divide(step, parts, k**2)
        top, left = tap // k * dilation, tap % k * dilation
        corner = (top // stride, left // stride, jnp.uint32(0))
        start = (top % stride, left % stride, part, jnp.uint32(0), *corner)
        images = lax.dynamic_slice(phases, start, (1, 1, 1, *gradients.shape[1:]))
        images = images[0, 0, 0].astype(sums.dtype)
        towards = lax.dynamic_index_in_dim(gradients, part, keepdims=False)
        total = lax.dynamic_index_in_dim(sums, tap, keepdims=False)
        for n in range(count):
            total = total + images[n] * towards[n]
        sums = lax.dynamic_update_index_in_dim(sums, total, tap, 0)
        is_last = step == k**2 * parts - 1
        return ~is_last, jnp.where(is_last, 0, step + 1), sums

    *_, sums = run(add, k**2 * parts)
    return sums.sum((1, 2)).reshape(k, k, channels)


def _divide(step: Any, parts: int, taps: int) -> tuple[Any, Any]:
    """Return tap and part of a step; parts come first.

    The bounds change nothing. But XLA fuses two operations and not one, and one that
    stands alone in a loop costs its CPU compiler a walk through the whole program.
    """
    return jnp.minimum(step // parts, taps - 1), jnp.minimum(step % parts, parts - 1)
