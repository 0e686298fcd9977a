"""Initial weights, and all of them from one random draw.

Compiling a draw costs more than running it: 150 weights drawn one by one are half a
minute of compile time on a CPU, one draw cut into 150 pieces half a second.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree


class _Supply:
    """Numbers in [-1, 1) that are handed out in turn."""

    def __init__(self, numbers: Float[Array | np.ndarray, " total"] | None):
        self.numbers = numbers
        self.used = 0

    def take(self, shape: tuple[int, ...]) -> Array | np.ndarray:
        start, self.used = self.used, self.used + math.prod(shape)
        if self.numbers is None:  # only counting
            return jnp.zeros(shape)
        return self.numbers[start : self.used].reshape(shape)


_supply: contextvars.ContextVar[_Supply | None] = contextvars.ContextVar(
    "supply", default=None
)


def torch_uniform(fan_in: int) -> Callable[..., Array]:
    """PyTorch's default initialisation: uniform within ``1 / sqrt(fan_in)``."""
    bound = 1 / math.sqrt(fan_in)

    def init(
        key: PRNGKeyArray, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32
    ) -> Array:
        supply = _supply.get()
        if supply is not None:
            return jnp.asarray(bound * supply.take(shape), dtype)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def draw_together(
    init: Callable[..., PyTree], key: PRNGKeyArray, *arguments: Any
) -> PyTree:
    """Return ``init(key, *arguments)`` with every ``torch_uniform`` cut from one draw.

    The weights have the distribution, but not the values, of ``init`` by itself.

    Args:
      init: for example the ``init`` of a network.
      key: random key.
      *arguments: arrays.
    """
    counter = _Supply(None)
    with _drawing_from(counter):
        jax.eval_shape(init, key, *arguments)
    numbers = jax.random.uniform(key, (counter.used,), minval=-1, maxval=1)
    if not isinstance(numbers, Tracer):
        numbers = np.asarray(numbers)  # cut on the host, not by 150 small programs
    with _drawing_from(_Supply(numbers)):
        return init(key, *arguments)


@contextlib.contextmanager
def _drawing_from(supply: _Supply) -> Iterator[None]:
    token = _supply.set(supply)
    try:
        yield
    finally:
        _supply.reset(token)
