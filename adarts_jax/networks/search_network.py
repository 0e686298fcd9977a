"""The search network (supernet): cells of mixed operations, for every method.

It receives the edge as a field and knows no method.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax import architecture
from adarts_jax.architecture import ArchitectureParams
from adarts_jax.edges.wave import cell_waves
from adarts_jax.nn.batch_norm import BatchNorm
from adarts_jax.nn.layers import FactorizedReduceBn, ReluConvBn, torch_uniform
from adarts_jax.space import topology

Images = Float[Array, "batch height width channel"]

STEM_MULTIPLIER = 3


class SearchCell(nn.Module):
    """A cell whose edges are mixed operations.

    Attributes:
      channels: width of every node.
      edges: builds one wave of edges: ``edges(wave=, stride=, name=)``.
      reduction: whether the edges that leave the inputs have stride 2.
      after_reduction: whether the previous cell was a reduction cell, so that the
        first input has twice the resolution of the second.
      num_nodes: intermediate nodes; all of them are concatenated.
    """

    channels: int
    edges: Callable[..., nn.Module]
    reduction: bool = False
    after_reduction: bool = False
    num_nodes: int = 4

    @nn.compact
    def __call__(
        self,
        s0: Images,
        s1: Images,
        op_weights: Float[Array, "edge op"],
        edge_weights: Float[Array, " edge"],
        *,
        train: bool,
    ) -> Images:
        """Return the concatenated nodes, ``num_nodes * channels`` channels."""
        first = FactorizedReduceBn if self.after_reduction else ReluConvBn
        s0 = first(self.channels, affine=False, name="preprocess0")(s0, train=train)
        s1 = ReluConvBn(self.channels, affine=False, name="preprocess1")(
            s1, train=train
        )
        states = [s0, s1]
        totals: dict[int, Images] = {}
        for index, wave in enumerate(cell_waves(self.num_nodes)):
            stride = 2 if self.reduction and index == 0 else 1
            module = self.edges(wave=wave, stride=stride, name=f"wave_{index}")
            sources = tuple(states[s] for s in wave.sources)
            parts = module(sources, op_weights, edge_weights, train=train)
            for target, part in zip(wave.targets, parts, strict=True):
                totals[target] = totals[target] + part if target in totals else part
            states.append(totals[len(states)])
        return jnp.concatenate(states[2:], axis=-1)


class SearchNetwork(nn.Module):
    """Stem, cells of mixed operations, linear classifier.

    Called as ``network.apply(variables, arch, images, train=...)``; the architecture
    is an argument of its own and never inside ``variables``.

    Attributes:
      init_channels: width of the first cell; doubles at each reduction cell.
      num_cells: cells in all; reduction cells at one and two thirds.
      num_classes: outputs.
      edges: module class of one wave of edges, called with ``wave``, ``primitives``,
        ``stride``, ``channel_divisor`` and ``name``.
      primitives: candidate operations, in the order of alpha's columns.
      channel_divisors: K per cell; the operations see ``1 / K`` of the channels.
      num_nodes: intermediate nodes per cell.

    Collections: ``params``, ``batch_stats``.
    """

    init_channels: int
    num_cells: int
    num_classes: int
    edges: Callable[..., nn.Module]
    primitives: tuple[str, ...]
    channel_divisors: tuple[int, ...]
    num_nodes: int = 4

    @nn.compact
    def __call__(
        self, arch: ArchitectureParams, images: Images, *, train: bool
    ) -> Float[Array, "batch class"]:
        """Return logits.

        Args:
          arch: architecture parameters (logits, not yet normalised).
          images: normalised images, NHWC.
          train: batch statistics (recorded) instead of running ones.
        """
        width = self.init_channels
        s0 = s1 = self._stem(images, train=train)
        reductions = topology.reduction_cells(self.num_cells)
        for cell in range(self.num_cells):
            reduction = cell in reductions
            width = 2 * width if reduction else width
            module = SearchCell(
                width,
                functools.partial(
                    self.edges,
                    primitives=self.primitives,
                    channel_divisor=self.channel_divisors[cell],
                ),
                reduction,
                cell - 1 in reductions,
                self.num_nodes,
                name=f"cell_{cell}",
            )
            weights = _normalized(arch, "reduce" if reduction else "normal")
            s0, s1 = s1, module(s0, s1, *weights, train=train)
        return self._classify(s1)

    def _stem(self, images: Images, *, train: bool) -> Images:
        channels = STEM_MULTIPLIER * self.init_channels
        conv = nn.Conv(
            channels,
            (3, 3),
            padding=1,
            use_bias=False,
            kernel_init=torch_uniform(9 * images.shape[-1]),
            name="stem_conv",
        )
        return BatchNorm(name="stem_bn")(conv(images), train=train)

    def _classify(self, x: Images) -> Float[Array, "batch class"]:
        init = torch_uniform(x.shape[-1])
        dense = nn.Dense(
            self.num_classes, kernel_init=init, bias_init=init, name="classifier"
        )
        return dense(x.mean((1, 2)))


def _normalized(
    arch: ArchitectureParams, cell_type: architecture.CellType
) -> tuple[Float[Array, "edge op"], Float[Array, " edge"]]:
    """Return op weights and edge weights (all 1 without edge normalization)."""
    op_weights = architecture.op_weights(arch.alpha(cell_type))
    beta = arch.beta(cell_type)
    if beta is None:
        return op_weights, jnp.ones(op_weights.shape[:1])
    return op_weights, architecture.edge_weights(beta)
