"""What a derived network is trained to minimise: probabilities of classes as targets.

Cross entropy is linear in its targets, so smoothed and mixed labels are nothing but
other targets.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from adarts_jax.data import cutmix

Images = Float[Array, "batch height width channel"]
Labels = Int[Array, " batch"]
Targets = Float[Array, "batch class"]


def smooth_targets(
    labels: Labels, *, num_classes: int, smoothing: float = 0.0
) -> Targets:
    """Return ``(1 - smoothing)`` for the label, plus ``smoothing / num_classes``.

    References:
      Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, section 7.
    """
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    return (1 - smoothing) * one_hot + smoothing / num_classes


def mix_batch(
    key: PRNGKeyArray,
    images: Images,
    labels: Labels,
    *,
    num_classes: int,
    smoothing: float = 0.0,
    cutmix_probability: float = 0.0,
    cutmix_beta: float = 1.0,
) -> tuple[Images, Targets]:
    """Return the images to train on, and the probabilities wanted for them.

    Args:
      key: randomness.
      images: augmented and normalised.
      labels: of the images.
      num_classes: number of classes.
      smoothing: see ``smooth_targets``.
      cutmix_probability: see ``cutmix.draw_mixture``; 0 for no CutMix.
      cutmix_beta: likewise.
    """
    targets = smooth_targets(labels, num_classes=num_classes, smoothing=smoothing)
    if not cutmix_probability:
        return images, targets
    batch, height, width, _ = images.shape
    mixture = cutmix.draw_mixture(
        key,
        shape=(batch, height, width),
        probability=cutmix_probability,
        beta=cutmix_beta,
    )
    share = mixture.share
    targets = share * targets + (1 - share) * targets[mixture.partners]
    return cutmix.paste(images, mixture), targets


def heads_loss(
    logits: Targets,
    auxiliary: Targets | None,
    targets: Targets,
    auxiliary_weight: float,
) -> Float[Array, ""]:
    """Mean cross entropy, plus the weighted one of the auxiliary head; nats."""
    loss = optax.softmax_cross_entropy(logits, targets).mean()
    if auxiliary is None:
        return loss
    extra = optax.softmax_cross_entropy(auxiliary, targets).mean()
    return loss + auxiliary_weight * extra
