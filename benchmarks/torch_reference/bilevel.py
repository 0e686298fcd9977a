"""The two steps of a first-order search, with the optimizers of the original."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_reference.search_network import Architecture, SearchNetwork


def weight_optimizer(
    network: nn.Module,
    *,
    learning_rate: float = 0.025,
    momentum: float = 0.9,
    weight_decay: float = 3e-4,
) -> torch.optim.SGD:
    """SGD over the network weights; L2 on all of them, norms and attention included."""
    return torch.optim.SGD(
        network.parameters(),
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
    )


def architecture_optimizer(
    arch: Architecture, *, learning_rate: float = 6e-4, weight_decay: float = 1e-3
) -> torch.optim.Adam:
    """Adam over the architecture; its decay is L2 added to the gradient."""
    return torch.optim.Adam(
        arch, lr=learning_rate, betas=(0.5, 0.999), weight_decay=weight_decay
    )


def architecture_step(
    network: SearchNetwork,
    arch: Architecture,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """Move the architecture by its gradient at the current weights (first order).

    Only the gradients of the architecture are computed; batch norm statistics move as
    in every train-mode forward pass.

    Args:
      network: the search network, in train mode.
      arch: leaves that require gradients; changed in place, ``.grad`` is left behind.
      optimizer: as from ``architecture_optimizer``.
      images: (B, 3, H, W) batch of the architecture split.
      labels: (B,) class indices.

    Returns:
      The loss before the step, without graph.
    """
    loss = functional.cross_entropy(network(images, arch), labels)
    gradients = torch.autograd.grad(loss, list(arch), allow_unused=True)
    for logits, gradient in zip(arch, gradients, strict=True):
        logits.grad = gradient
    optimizer.step()
    return loss.detach()


def weight_step(
    network: SearchNetwork,
    arch: Architecture,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    max_norm: float = 5.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Move the network weights at a fixed architecture.

    Args:
      network: the search network, in train mode; changed in place.
      arch: architecture, not touched.
      optimizer: as from ``weight_optimizer``.
      images: (B, 3, H, W) batch of the weight split.
      labels: (B,) class indices.
      max_norm: limit of the global gradient norm.

    Returns:
      loss, logits (B, class) and gradient norm before clipping, all without graph.
    """
    fixed = Architecture(*(logits.detach() for logits in arch))
    logits = network(images, fixed)
    loss = functional.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), max_norm)
    optimizer.step()
    return loss.detach(), logits.detach(), norm
