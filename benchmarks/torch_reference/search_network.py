"""The alpha-ADARTS search network in plain PyTorch: one module per edge and operation.

Architecture parameters are arguments of ``forward``, never parameters of the module.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from adarts_jax.torch_reference.primitives import (
    ALPHA_ADARTS_PRIMITIVES,
    FactorizedReduce,
    ReluConvBn,
    search_primitive,
)

NUM_NODES = 4
STEM_MULTIPLIER = 3


class Architecture(NamedTuple):
    """Logits of the search, in the order in which Adam sees them.

    Attributes:
      alpha_normal: (14, 10) logits over operations, normal cells.
      alpha_reduce: (14, 10) the same for reduction cells.
      beta_normal: (14,) logits over the incoming edges of each node, normal cells.
      beta_reduce: (14,) the same for reduction cells.
    """

    alpha_normal: Tensor
    alpha_reduce: Tensor
    beta_normal: Tensor
    beta_reduce: Tensor


class EdgeMixture(NamedTuple):
    """What all cells of one type share in one forward pass.

    Attributes:
      op_weights: (edge, op) softmax of alpha.
      edge_weights: (edge,) softmax of beta over the incoming edges of each node.
      coupling: (op, op) ``A^T A`` of the op weights, which steers the attention.
    """

    op_weights: Tensor
    edge_weights: Tensor
    coupling: Tensor


def random_architecture(generator: torch.Generator | None = None) -> Architecture:
    """Plain initialisation: 1e-3 * N(0, 1), leaves that require gradients."""
    edges, ops = sum(range(2, 2 + NUM_NODES)), len(ALPHA_ADARTS_PRIMITIVES)

    def draw(*shape: int) -> Tensor:
        return (1e-3 * torch.randn(*shape, generator=generator)).requires_grad_()

    return Architecture(draw(edges, ops), draw(edges, ops), draw(edges), draw(edges))


def edge_mixture(alpha: Tensor, beta: Tensor) -> EdgeMixture:
    """Normalise the logits of one cell type."""
    op_weights = alpha.softmax(dim=-1)
    incoming = beta.split([2 + node for node in range(NUM_NODES)])
    edge_weights = torch.cat([logits.softmax(dim=0) for logits in incoming])
    return EdgeMixture(op_weights, edge_weights, op_weights.T @ op_weights)


class ChannelAttention(nn.Module):
    """Attention over channels, conditioned on the coupling of the op weights."""

    def __init__(self, channels: int, num_primitives: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(2 * channels, num_primitives, 1, bias=False)
        self.fc2 = nn.Conv2d(num_primitives, channels, 1, bias=False)

    def forward(self, x: Tensor, coupling: Tensor) -> Tensor:
        """(B, C, H, W) and (op, op) to attention (B, C, 1, 1) in (0, 1)."""
        pooled = torch.cat(
            [
                functional.adaptive_avg_pool2d(x, 1),
                functional.adaptive_max_pool2d(x, 1),
            ],
            dim=1,
        )
        squeezed = self.fc1(pooled).flatten(1)
        gated = torch.relu(squeezed @ coupling)  # the coupling is symmetric
        return torch.sigmoid(self.fc2(gated[:, :, None, None]))


class AttendedEdge(nn.Module):
    """Mixed operation on the 1/K most attended channels; the others pass by."""

    def __init__(self, channels: int, stride: int, divisor: int) -> None:
        super().__init__()
        if channels % divisor:
            raise ValueError(f"channels={channels} must be divisible by K={divisor}")
        self.num_selected = channels // divisor
        self.stride = stride
        self._ops = nn.ModuleList(
            search_primitive(name, self.num_selected, stride)
            for name in ALPHA_ADARTS_PRIMITIVES
        )
        self.ca = ChannelAttention(channels, len(ALPHA_ADARTS_PRIMITIVES))

    def select(self, attention: Tensor) -> Tensor:
        """Indices of the most attended channels of the whole batch, best first.

        A stable sort gives ties to the lowest index, which ``topk`` does not promise.
        """
        score = attention.detach().sum(0).flatten()
        return score.argsort(descending=True, stable=True)[: self.num_selected]

    def forward(self, x: Tensor, op_weights: Tensor, coupling: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/stride, W/stride)."""
        attention = self.ca(x, coupling)
        x = x * attention
        selected = self.select(attention)
        part = x.index_select(1, selected)
        weighted = [w * op(part) for w, op in zip(op_weights, self._ops, strict=True)]
        mixed = reduce(torch.add, weighted)
        rest = functional.max_pool2d(x, 2) if self.stride == 2 else x
        return rest.index_copy(1, selected, mixed)


class SearchCell(nn.Module):
    """Four nodes, each the edge-weighted sum over all earlier states."""

    def __init__(
        self,
        channels_in: tuple[int, int],
        channels: int,
        divisor: int,
        *,
        reduction: bool,
        reduction_before: bool,
    ) -> None:
        super().__init__()
        self.reduction = reduction
        adapter = FactorizedReduce if reduction_before else ReluConvBn
        self.preprocess0 = adapter(channels_in[0], channels, affine=False)
        self.preprocess1 = ReluConvBn(channels_in[1], channels, affine=False)
        self._ops = nn.ModuleList(
            AttendedEdge(channels, 2 if reduction and source < 2 else 1, divisor)
            for node in range(NUM_NODES)
            for source in range(2 + node)
        )

    def forward(self, s0: Tensor, s1: Tensor, mixture: EdgeMixture) -> Tensor:
        """Two earlier outputs to the concatenation of the four nodes."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        op_weights, edge_weights, coupling = mixture
        first = 0
        for _ in range(NUM_NODES):
            incoming = [
                edge_weights[first + i]
                * self._ops[first + i](state, op_weights[first + i], coupling)
                for i, state in enumerate(states)
            ]
            first += len(states)
            states.append(reduce(torch.add, incoming))
        return torch.cat(states[2:], dim=1)


class SearchNetwork(nn.Module):
    """Stem, cells with reductions at 1/3 and 2/3 of the depth, linear head."""

    def __init__(
        self,
        init_channels: int,
        num_cells: int,
        num_classes: int,
        *,
        channel_divisors: Sequence[int] | None = None,
        image_channels: int = 3,
    ) -> None:
        """Build the network.

        Args:
          init_channels: width C of the first cell.
          num_cells: number of cells L; reductions at L//3 and 2L//3.
          num_classes: outputs of the head.
          channel_divisors: K of each cell (a longer list is cut); 4 everywhere by
            default.
          image_channels: channels of the input images.
        """
        super().__init__()
        divisors = list(channel_divisors or [4] * num_cells)[:num_cells]
        if len(divisors) < num_cells:
            raise ValueError(
                f"channel_divisors has {len(divisors)} entries, num_cells={num_cells}"
            )
        width = STEM_MULTIPLIER * init_channels
        self.stem = nn.Sequential(
            nn.Conv2d(image_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        reductions = (num_cells // 3, 2 * num_cells // 3)
        channels, previous = init_channels, (width, width)
        self.cells = nn.ModuleList()
        for index, divisor in enumerate(divisors):
            channels *= 2 if index in reductions else 1
            self.cells.append(
                SearchCell(
                    previous,
                    channels,
                    divisor,
                    reduction=index in reductions,
                    reduction_before=index - 1 in reductions,
                )
            )
            previous = (previous[1], NUM_NODES * channels)
        self.classifier = nn.Linear(previous[1], num_classes)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Images (B, 3, H, W) and architecture to logits (B, class)."""
        normal = edge_mixture(arch.alpha_normal, arch.beta_normal)
        reduction = edge_mixture(arch.alpha_reduce, arch.beta_reduce)
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, reduction if cell.reduction else normal)
        return self.classifier(s1.mean((2, 3)))
