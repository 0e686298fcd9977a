"""The two optimizers of the search, with the semantics of their PyTorch originals.

Updates come out without the learning rate; the steps multiply by it, so that one
compiled program serves every epoch.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree


@dataclasses.dataclass(frozen=True)
class Optimizers:
    """One optimizer per level.

    Attributes:
      weight: for the network weights.
      architecture: for the architecture parameters.
      virtual: that of the weights without clipping, with the same state: the virtual
        step of the second order.
      gradient_clip: largest global norm of the weight gradient; None for none.
    """

    weight: optax.GradientTransformation
    architecture: optax.GradientTransformation
    virtual: optax.GradientTransformation
    gradient_clip: float | None = None


def make_optimizers(
    *,
    momentum: float = 0.9,
    weight_decay: float = 3e-4,
    gradient_clip: float | None = 5.0,
    architecture_betas: tuple[float, float] = (0.5, 0.999),
    architecture_weight_decay: float = 1e-3,
    architecture_gradient_clip: float | None = None,
    virtual_momentum: bool = True,
) -> Optimizers:
    """Build both optimizers (methods.md 4.1 and 4.2).

    Args:
      momentum: of the weights' SGD.
      weight_decay: L2 added to every weight's gradient after clipping, batch norm and
        attention included.
      gradient_clip: largest global norm of the weight gradient; None: no clipping.
      architecture_betas: Adam's two decay rates.
      architecture_weight_decay: L2 added to the architecture gradient before Adam's
        moments (PyTorch's ``weight_decay``; not AdamW).
      architecture_gradient_clip: as ``gradient_clip``, for the architecture.
      virtual_momentum: whether the virtual step has the momentum of the weights.
    """
    beta1, beta2 = architecture_betas

    def sgd(clip: float | None, decay: float) -> optax.GradientTransformation:
        return _on_one_vector(
            clip_by_norm(clip),
            optax.add_decayed_weights(weight_decay),
            optax.trace(decay),
        )

    return Optimizers(
        weight=sgd(gradient_clip, momentum),
        architecture=_on_one_vector(
            clip_by_norm(architecture_gradient_clip),
            optax.add_decayed_weights(architecture_weight_decay),
            optax.scale_by_adam(beta1, beta2, eps=1e-8),
        ),
        virtual=sgd(None, momentum if virtual_momentum else 0.0),
        gradient_clip=gradient_clip,
    )


def _on_one_vector(
    *rules: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Chain rules that work on all weights end to end.

    150 small arrays would be 600 small programs to compile, a fifth of a search step.
    """
    return optax.flatten(optax.chain(*rules))


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm of all numbers of a pytree."""
    vector, _ = ravel_pytree(tree)
    return jnp.sqrt(jnp.sum(jnp.square(vector)))


def clip_by_norm(max_norm: float | None) -> optax.GradientTransformation:
    """Scale by ``min(1, max_norm / (norm + 1e-6))``, PyTorch's clip_grad_norm_."""
    if max_norm is None:
        return optax.identity()

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple:
        del params
        factor = jnp.minimum(1.0, max_norm / (global_norm(updates) + 1e-6))
        return jax.tree.map(lambda u: u * factor, updates), state

    def init(params: PyTree) -> optax.OptState:
        del params
        return optax.EmptyState()

    return optax.GradientTransformation(init, update)


def clip_together(gradient: PyTree, other: PyTree, max_norm: float | None) -> PyTree:
    """Clip a gradient by a norm that counts another one too, see ``clip_by_norm``."""
    if max_norm is None:
        return gradient
    factor = jnp.minimum(1.0, max_norm / (global_norm((gradient, other)) + 1e-6))
    return jax.tree.map(lambda g: factor * g, gradient)


def descend(
    optimizer: optax.GradientTransformation,
    gradient: PyTree,
    opt_state: optax.OptState,
    params: PyTree,
    learning_rate: jax.Array | float,
) -> tuple[PyTree, optax.OptState]:
    """Return ``params - learning_rate * update`` and the optimizer's new state."""
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    params = jax.tree.map(lambda p, u: p - learning_rate * u, params, updates)
    return params, opt_state
