"""Gradients of both levels at the current weights (first order)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from adarts_jax.architecture import ArchitectureParams

Batch = tuple[Float[Array, "batch height width channel"], Int[Array, " batch"]]


class Gradients(NamedTuple):
    """What one pass forward and backward yields.

    Attributes:
      params: gradient towards the network weights.
      arch: gradient towards the architecture parameters.
      batch_stats: the running statistics after this pass.
      loss: mean cross entropy, in nats.
      accuracy: share of correct predictions, in [0, 1].
      logits: (batch, class).
      tied_edges: edges whose attention is the same for all channels, so that the
        choice of channels is arbitrary; 0 for methods without attention.
    """

    params: PyTree
    arch: ArchitectureParams
    batch_stats: PyTree
    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    logits: Float[Array, "batch class"]
    tied_edges: Float[Array, ""]


def cross_entropy(
    logits: Float[Array, "batch class"], labels: Int[Array, " batch"]
) -> Float[Array, ""]:
    """Mean negative log-likelihood of the labels, in nats."""
    # Not the function of integer labels: the gradient of its gather is a scatter.
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, targets).mean()


def loss_of(
    network: nn.Module,
    batch_stats: PyTree,
    batch: Batch,
    params: PyTree,
    arch: ArchitectureParams,
    *,
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, ""], tuple[Float[Array, "batch class"], PyTree]]:
    """Return the loss of one batch, and (logits, what the pass recorded).

    Batch norm uses batch statistics.

    Args:
      network: search network.
      batch_stats: running statistics before the pass.
      batch: images and labels.
      params: network weights.
      arch: architecture parameters.
      key: randomness of networks that draw (random partial channels).
    """
    images, labels = batch
    logits, updates = network.apply(
        {"params": params, "batch_stats": batch_stats},
        arch,
        images,
        train=True,
        mutable=["batch_stats", "intermediates"],
        rngs=None if key is None else {"channels": key},
    )
    return cross_entropy(logits, labels), (logits, updates)


def first_order(
    network: nn.Module,
    params: PyTree,
    arch: ArchitectureParams,
    batch_stats: PyTree,
    batch: Batch,
    *,
    key: PRNGKeyArray | None = None,
) -> Gradients:
    """Differentiate the loss of one batch towards weights and architecture.

    The caller uses one of the two; XLA drops the other from a compiled program that
    does not need it. Arguments as in ``loss_of``.
    """
    loss_at = functools.partial(loss_of, network, batch_stats, batch, key=key)
    (loss, (logits, updates)), (to_params, to_arch) = jax.value_and_grad(
        loss_at, argnums=(0, 1), has_aux=True
    )(params, arch)
    return Gradients(
        params=to_params,
        arch=to_arch,
        batch_stats=updates["batch_stats"],
        loss=loss,
        accuracy=(logits.argmax(-1) == batch[1]).mean(),
        logits=logits,
        tied_edges=_tied_edges(updates.get("intermediates", {})),
    )


def _tied_edges(intermediates: PyTree) -> Float[Array, ""]:
    found = jax.tree_util.tree_leaves_with_path(intermediates)
    counts = [
        leaf
        for path, leaf in found
        if any(getattr(key, "key", None) == "tied_edges" for key in path)
    ]
    return sum(counts, start=jnp.zeros((), jnp.int32)).astype(jnp.float32)
