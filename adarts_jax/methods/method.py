"""What a method is: its edge, its architecture tensors, its discretization."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from flax import linen as nn
from jaxtyping import PRNGKeyArray

from adarts_jax import architecture
from adarts_jax.architecture import ArchitectureParams
from adarts_jax.errors import UserError, did_you_mean
from adarts_jax.networks.search_network import SearchNetwork
from adarts_jax.space import topology
from adarts_jax.space.stack import Stem

Initialization = Literal["biased", "plain", "zero"]


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

    def draws(self, options: Mapping[str, Any]) -> bool:
        """Whether the search network needs random numbers with these options."""
        return options.get("channel_choice") == "random"

    @property
    def divides_channels(self) -> bool:
        """Whether a part of the channels enters the operations."""
        return self.channel_divisor > 1

    @property
    def initializations(self) -> tuple[Initialization, ...]:
        """Ways to start the logits, the default first.

        The papers of DARTS and Att-DARTS start at zero, their code with small noise.
        """
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
        return SearchNetwork(
            init_channels=init_channels,
            num_cells=num_cells,
            num_classes=num_classes,
            edges=self.choose_edges(options or {}),
            primitives=self.primitives,
            channel_divisors=divisors,
            num_nodes=num_nodes,
            stem=stem,
        )

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
        return functools.partial(self.edges, **options) if options else self.edges

    def init_architecture(
        self,
        key: PRNGKeyArray,
        *,
        initialization: Initialization | None = None,
        num_nodes: int = topology.NUM_NODES,
    ) -> ArchitectureParams:
        """Draw architecture parameters.

        Args:
          key: random key.
          initialization: "biased", "plain" or "zero"; None: the method's default.
          num_nodes: intermediate nodes per cell.

        Raises:
          UserError: the method has no such initialization.
        """
        chosen = initialization or self.initializations[0]
        if chosen not in self.initializations:
            raise UserError(
                f"initialization = '{chosen}' is not available for {self.name};"
                f" choose from: {', '.join(self.initializations)}"
            )
        scale = 0.0 if chosen == "zero" else architecture.PLAIN_SCALE
        biased = None
        if chosen == "biased" and self.biased_primitive:
            biased = self.primitives.index(self.biased_primitive)
        return architecture.init_architecture(
            key,
            num_primitives=len(self.primitives),
            num_nodes=num_nodes,
            edge_normalization=self.edge_normalization,
            num_attentions=len(self.attentions),
            biased_primitive=biased,
            scale=scale,
        )


def check_channel_divisors(
    init_channels: int, num_cells: int, divisors: Sequence[int]
) -> None:
    """Check that every cell's channels can be divided.

    Raises:
      UserError: a width is not divisible by its K, or leaves a reduction cell an odd
        number of channels, which its factorized reductions cannot halve.
    """
    if len(divisors) != num_cells:
        raise UserError(
            f"channel_divisor has {len(divisors)} values for num_cells = {num_cells};"
            " give one number, or one per cell"
        )
    reductions, width = topology.reduction_cells(num_cells), init_channels
    for cell, divisor in enumerate(divisors):
        width = 2 * width if cell in reductions else width
        factor = width // init_channels
        if divisor < 1 or width % divisor:
            raise UserError(
                f"init_channels = {init_channels} must be divisible by channel_divisor"
                f" = {divisor} (cell {cell} has {factor} x {init_channels} channels);"
                f" {_suggest(init_channels, divisor)}"
            )
        if cell in reductions and (width // divisor) % 2:
            raise UserError(
                f"channel_divisor = {divisor} leaves {width // divisor} channels in"
                f" reduction cell {cell}, which must be even;"
                f" {_suggest(init_channels, 2 * divisor)}"
            )


def _suggest(channels: int, multiple: int) -> str:
    below = channels // max(multiple, 1) * multiple
    options = [str(n) for n in (below, below + multiple) if n > 0]
    return f"try init_channels = {' or '.join(options)}"
