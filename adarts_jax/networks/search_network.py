"""The search network (supernet): cells of mixed operations, for every method.

It receives the edge as a field and knows no method.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax import architecture
from adarts_jax.architecture import ArchitectureParams, CellWeights
from adarts_jax.edges.wave import cell_waves
from adarts_jax.networks.stem import CifarStem, ImageNetStem
from adarts_jax.nn.boundary import boundary
from adarts_jax.nn.initial_weights import torch_uniform
from adarts_jax.nn.layers import FactorizedReduceBn, ReluConvBn
from adarts_jax.space import topology
from adarts_jax.space.stack import Stem

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
        weights: CellWeights,
        *,
        train: bool,
    ) -> Images:
        """Return the concatenated nodes, ``num_nodes * channels`` channels."""
        first = FactorizedReduceBn if self.after_reduction else ReluConvBn
        s0 = first(self.channels, affine=False, name="preprocess0")(s0, train=train)
        s1 = ReluConvBn(self.channels, affine=False, name="preprocess1")(
            s1, train=train
        )
        s0, s1, weights = boundary((s0, s1, weights))
        states = [s0, s1]
        totals: dict[int, Images] = {}
        for index, wave in enumerate(cell_waves(self.num_nodes)):
            stride = 2 if self.reduction and index == 0 else 1
            module = self.edges(wave=wave, stride=stride, name=f"wave_{index}")
            sources = tuple(states[s] for s in wave.sources)
            parts = module(sources, weights, train=train)
            for target, part in zip(wave.targets, parts, strict=True):
                totals[target] = totals[target] + part if target in totals else part
            states.append(totals[len(states)].astype(s1.dtype))
        return boundary(jnp.concatenate(states[2:], axis=-1))


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
      stem: "cifar" keeps the resolution, "imagenet" starts at an eighth of it.
      dtype: type of the maps between layers and of their arithmetic; None for that of
        the images. Parameters, statistics, attention and logits stay float32.

    Collections: ``params``, ``batch_stats``.
    """

    init_channels: int
    num_cells: int
    num_classes: int
    edges: Callable[..., nn.Module]
    primitives: tuple[str, ...]
    channel_divisors: tuple[int, ...]
    num_nodes: int = 4
    stem: Stem = "cifar"
    dtype: Any = None

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
        if self.dtype is not None:
            images = images.astype(self.dtype)
        width = self.init_channels
        stem = CifarStem if self.stem == "cifar" else ImageNetStem
        channels = STEM_MULTIPLIER * self.init_channels
        s0, s1 = stem(channels, images.dtype, name="stem")(images, train=train)
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
                follows_reduction(self, cell),
                self.num_nodes,
                name=f"cell_{cell}",
            )
            cell_type = "reduce" if reduction else "normal"
            weights = architecture.cell_weights(arch, cell_type, cell)
            s0, s1 = s1, module(s0, s1, weights, train=train)
        return self._classify(s1)

    def _classify(self, x: Images) -> Float[Array, "batch class"]:
        init = torch_uniform(x.shape[-1])
        dense = nn.Dense(
            self.num_classes, kernel_init=init, bias_init=init, name="classifier"
        )
        return dense(x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32)))


def follows_reduction(network: SearchNetwork, cell: int) -> bool:
    """Whether the first input of a cell has twice the size of the second.

    So behind a reduction cell and, first of all, behind the ImageNet stem.
    """
    if cell == 0:
        return network.stem == "imagenet"
    return cell - 1 in topology.reduction_cells(network.num_cells)
