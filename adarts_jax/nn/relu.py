"""ReLU whose gradient looks at the result.

The layer after it keeps the result anyway; the mask that `jax.nn.relu` keeps would be
written besides.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return ``max(x, 0)``; the gradient at 0 is 0, as in PyTorch.

    Only for reverse mode, or forward mode of a gradient.
    """
    return jnp.maximum(x, 0)


def _relu_forward(x):
    y = jnp.maximum(x, 0)
    return y, y


def _relu_backward(y, g):
    return (where_positive(y, g),)


relu.defvjp(_relu_forward, _relu_backward)


def where_positive(
    y: Float[Array, "..."], g: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return the gradient towards what a ReLU took, from its result and gradient."""
    return jnp.where(y > 0, g, 0)
