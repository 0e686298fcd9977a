"""What a backward pass makes of saved arrays, made when it is needed and not before.

XLA orders operations by what they depend on. A padded copy of a saved array depends on
nothing else, so XLA may make it in the forward pass already, and keep it until then.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def wait_for(g: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return ``x``, but not before ``g`` is known.

    A barrier does not last: XLA's CPU compiler drops it before it orders operations. A
    comparison does, because it fails for NaN; the result is NaN then.

    Args:
      g: gradient that is used together with ``x``; its first number is compared.
      x: what has to wait.
    """
    first = jax.lax.stop_gradient(g[(0,) * g.ndim])
    return jnp.where(first == first, x, first.astype(x.dtype))
