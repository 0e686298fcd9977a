"""What a method is: its edge, its architecture tensors, its discretization."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import PRNGKeyArray
from numpy.typing import DTypeLike

from adarts_jax import architecture
from adarts_jax.architecture import ArchitectureParams
from adarts_jax.edges.grouped import INITIAL
from adarts_jax.errors import UserError, did_you_mean
from adarts_jax.methods.uniform import uniform_architecture
from adarts_jax.networks.search_network import SearchNetwork
from adarts_jax.space import topology
from adarts_jax.space.stack import Stem

# Options that shape the architecture parameters or the search, not the edges.
_NOT_OF_EDGES = ("group_training", "weight_sharing")

Initialization = Literal["biased", "plain", "zero", "uniform"]


@dataclasses.dataclass(frozen=True)
class Method:
    """An immutable description; all methods share one search network.

    Attributes:
      name: identifier.
      reference: paper.
      primitives: candidate operations, in the order of alpha's columns.
      edges: module class of one wave of edges.
      edge_normalization: whether there are betas.
      discretize_rule: how a genotype is read off.
      channel_divisor: default K; the operations see ``1 / K`` of the channels.
      biased_primitive: operation favoured by the biased initialisation of alpha; None
        where the method has none.
      options: settings of ``edges`` that a caller may choose.
      attentions: candidates after the operations of an edge, in the order of the
        attention logits' columns; ``edges`` has them too.
      num_groups: groups of channels that must divide the width of every cell.
      trains_architecture: whether gradients move the architecture; random search draws
        it instead.
    """

    name: str
    reference: str
    primitives: tuple[str, ...]
    edges: Callable[..., nn.Module]
    edge_normalization: bool
    discretize_rule: Literal["darts", "edge_weighted"]
    channel_divisor: int = 1
    biased_primitive: str | None = None
    options: tuple[str, ...] = ()
    attentions: tuple[str, ...] = ()
    num_groups: int = 1
    trains_architecture: bool = True

    @property
    def groups_convolutions(self) -> bool:
        """Whether the convolutions of the operations have groups."""
        bound = getattr(self.edges, "keywords", {})
        return bound.get("conv_groups", 1) > 1

    def draws(self, options: Mapping[str, Any]) -> bool:
        """Whether the search network needs random numbers with these options."""
        return options.get("channel_choice") == "random" or not self.trains_architecture

    @property
    def divides_channels(self) -> bool:
        """Whether a part of the channels enters the operations."""
        return self.channel_divisor > 1

    @property
    def initializations(self) -> tuple[Initialization, ...]:
        """Ways to start the logits, the default first.

        The papers of DARTS and Att-DARTS start at zero, their code with small noise.
        """
        if not self.trains_architecture:
            return ("uniform", "plain", "zero")
        if self.biased_primitive:
            return ("biased", "plain", "zero")
        return ("plain", "zero")

    def make_network(
        self,
        *,
        init_channels: int = 16,
        num_cells: int = 8,
        num_classes: int = 10,
        channel_divisor: int | Sequence[int] | None = None,
        num_nodes: int = topology.NUM_NODES,
        stem: Stem = "cifar",
        dtype: DTypeLike | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> SearchNetwork:
        """Build the search network.

        Args:
          init_channels: width of the first cell; doubles at each reduction cell.
          num_cells: cells in all.
          num_classes: outputs.
          channel_divisor: K, one for all cells or one per cell; None: the method's.
          num_nodes: intermediate nodes per cell.
          stem: layout in front of the cells.
          dtype: of the arithmetic; None for that of the images.
          options: settings of the method's edges, by the names in ``self.options``.

        Raises:
          UserError: the channels of a cell are not divisible by its K, or the method
            does not have an option.
        """
        if channel_divisor is None:
            channel_divisor = self.channel_divisor
        if isinstance(channel_divisor, int):
            channel_divisor = [channel_divisor] * num_cells
        divisors = tuple(channel_divisor)
        if not self.divides_channels and set(divisors) != {1}:
            raise UserError(
                f"{self.name} sends all channels through the operations; "
                f"leave out channel_divisor = {channel_divisor} or make it 1"
            )
        check_channel_divisors(init_channels, num_cells, divisors)
        groups = self.count_groups(options or {})
        check_channel_divisors(
            init_channels, num_cells, (groups,) * num_cells, name="the number of groups"
        )
        return SearchNetwork(
            init_channels=init_channels,
            num_cells=num_cells,
            num_classes=num_classes,
            edges=self.choose_edges(options or {}),
            primitives=self.primitives,
            channel_divisors=divisors,
            num_nodes=num_nodes,
            stem=stem,
            dtype=dtype,
        )

    def count_groups(self, options: Mapping[str, Any]) -> int:
        """Return the number of channel groups of an edge.

        Raises:
          UserError: the convolutions have another number of groups that does not fit.
        """
        initial, convs = options.get("group_initial"), options.get("conv_groups", 1)
        groups = self.num_groups if initial is None else len(initial)
        if groups % convs and convs % groups:
            raise UserError(
                f"conv_groups = {convs} and the {groups} values of group_initial must "
                "divide each other"
            )
        return max(groups, convs)

    def choose_edges(self, options: Mapping[str, Any]) -> Callable[..., nn.Module]:
        """Return the edges with some of their settings chosen.

        Raises:
          UserError: the method does not have an option.
        """
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise UserError(
                    f"{self.name} has no option '{name}'"
                    f"{did_you_mean(name, self.options)} (it has: {known})"
                )
        settings = {k: v for k, v in options.items() if k not in _NOT_OF_EDGES}
        initial = settings.get("group_initial")
        if initial is not None and self.groups_convolutions:
            settings.setdefault("conv_groups", len(initial))
        return functools.partial(self.edges, **settings) if settings else self.edges

    def init_architecture(
        self,
        key: PRNGKeyArray,
        *,
        initialization: Initialization | None = None,
        num_nodes: int = topology.NUM_NODES,
        num_cells: int = 8,
        options: Mapping[str, Any] | None = None,
    ) -> ArchitectureParams:
        """Draw architecture parameters.

        Args:
          key: random key.
          initialization: one of ``initializations``; None: the method's default.
          num_nodes: intermediate nodes per cell.
          num_cells: of the network; read where groups belong to the architecture.
          options: as in ``make_network``.

        Raises:
          UserError: the method has no such initialization.
        """
        chosen = initialization or self.initializations[0]
        if chosen not in self.initializations:
            raise UserError(
                f"initialization = '{chosen}' is not available for {self.name};"
                f" choose from: {', '.join(self.initializations)}"
            )
        if chosen == "uniform":
            return uniform_architecture(
                key,
                num_edges=topology.num_edges(num_nodes),
                num_primitives=len(self.primitives),
            )
        scale = 0.0 if chosen == "zero" else architecture.PLAIN_SCALE
        biased = None
        if chosen == "biased" and self.biased_primitive:
            biased = self.primitives.index(self.biased_primitive)
        arch = architecture.init_architecture(
            key,
            num_primitives=len(self.primitives),
            num_nodes=num_nodes,
            edge_normalization=self.edge_normalization,
            num_attentions=len(self.attentions),
            biased_primitive=biased,
            scale=scale,
        )
        options = options or {}
        if options.get("group_training") != "architecture":
            return arch
        initial = jnp.array(options.get("group_initial", INITIAL), jnp.float32)
        shape = (num_cells, topology.num_edges(num_nodes), len(initial))
        return dataclasses.replace(arch, groups=jnp.broadcast_to(initial, shape))


def check_channel_divisors(
    init_channels: int,
    num_cells: int,
    divisors: Sequence[int],
    *,
    name: str = "channel_divisor",
) -> None:
    """Check that every cell's channels can be divided.

    Raises:
      UserError: a width is not divisible by its K, or leaves a reduction cell an odd
        number of channels, which its factorized reductions cannot halve.
    """
    if len(divisors) != num_cells:
        raise UserError(
            f"{name} has {len(divisors)} values for num_cells = {num_cells};"
            " give one number, or one per cell"
        )
    reductions, width = topology.reduction_cells(num_cells), init_channels
    for cell, divisor in enumerate(divisors):
        width = 2 * width if cell in reductions else width
        factor = width // init_channels
        if divisor < 1 or width % divisor:
            raise UserError(
                f"init_channels = {init_channels} must be divisible by {name}"
                f" = {divisor} (cell {cell} has {factor} x {init_channels} channels);"
                f" {_suggest(init_channels, divisor)}"
            )
        if cell in reductions and (width // divisor) % 2:
            raise UserError(
                f"{name} = {divisor} leaves {width // divisor} channels in"
                f" reduction cell {cell}, which must be even;"
                f" {_suggest(init_channels, 2 * divisor)}"
            )


def _suggest(channels: int, multiple: int) -> str:
    below = channels // max(multiple, 1) * multiple
    options = [str(n) for n in (below, below + multiple) if n > 0]
    return f"try init_channels = {' or '.join(options)}"
