"""Parameters and multiply-adds of whole networks, at any resolution.

The counts of the original code, exactly: batch norm weights and biases included,
running statistics, architecture parameters and the auxiliary head not. The
convention for multiply-adds is in ``operation_cost``; they are per image.
"""

from collections.abc import Sequence
from typing import Literal

from adarts_jax.errors import UserError
from adarts_jax.space import topology
from adarts_jax.space.attention_cost import ATTENTION_COSTS
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.operation_cost import (
    FREE,
    OPERATION_COSTS,
    Cost,
    batch_norm,
    conv_bn,
    convolution,
    linear,
    total,
)
from adarts_jax.space.stack import (
    CellPlace,
    Size,
    Stem,
    image_size,
    place_cells,
    preprocess_cost,
    stem_cost,
)

ChannelAttention = Literal["adarts", "alpha_adarts"]

DERIVED_STEM_MULTIPLIER = {"cifar": 3, "imagenet": 1}
SEARCH_STEM_MULTIPLIER = 3


def derived_network_cost(
    genotype: Genotype,
    *,
    init_channels: int = 36,
    num_cells: int = 20,
    num_classes: int = 10,
    stem: Stem = "cifar",
    size: int | Size | None = None,
) -> Cost:
    """Return the cost of the network built from a genotype, without auxiliary head.

    Args:
      genotype: both cells.
      init_channels: channels of the first cells; doubled at every reduction.
      num_cells: cells in all; reductions at one and two thirds.
      num_classes: outputs of the classifier.
      stem: layout in front of the cells; ``"imagenet"`` divides the size by 8.
      size: side, or (height, width), of an image in pixels; default 32, for the
        ImageNet stem 224. Of the parameters only ``GE_theta-plus`` depends on it.

    Differs from the papers: DARTS prints 574M multiply-adds for ImageNet, but the
    convolutions and the classifier of its released genotype have 530M.

    >>> from adarts_jax.space.published import PUBLISHED
    >>> derived_network_cost(PUBLISHED["darts_v2"]).parameters
    3349342
    """
    pixels = image_size(stem, size)
    places = _derived_places(genotype, init_channels, num_cells, stem, pixels)
    stem_channels = DERIVED_STEM_MULTIPLIER[stem] * init_channels
    return total(
        [
            stem_cost(stem, stem_channels, pixels),
            *(_derived_cell_cost(genotype, place) for place in places),
            linear(_features(genotype, places[-1]), num_classes),
        ]
    )


def auxiliary_head_cost(
    genotype: Genotype,
    *,
    init_channels: int = 36,
    num_cells: int = 20,
    num_classes: int = 10,
    stem: Stem = "cifar",
    size: int | Size | None = None,
) -> Cost:
    """Return the cost of the auxiliary classifier after the second reduction cell.

    The originals never count it in the size of a network. Arguments as in
    ``derived_network_cost``.

    Raises:
      UserError: the map there does not pool to 2 x 2; the originals have 8 x 8 for
        CIFAR and 7 x 7 for ImageNet.
    """
    pixels = image_size(stem, size)
    places = _derived_places(genotype, init_channels, num_cells, stem, pixels)
    position = 2 * num_cells // 3
    place = places[position]
    stride = 3 if stem == "cifar" else 2
    if any((side - 5) // stride + 1 != 2 for side in place.size_out):
        height, width = place.size_out
        raise UserError(
            f"the auxiliary head cannot use the {height}x{width} map after cell "
            f"{position}: it must pool to 2x2; change the image size or leave it out"
        )
    return total(
        [
            conv_bn(_features(genotype, place), 128, 1, 2, 2),
            convolution(4, 128, 768, 1),
            # The ImageNet head of the original lacks its second batch norm.
            batch_norm(768, affine=stem == "cifar"),
            linear(768, num_classes),
        ]
    )


def search_network_cost(
    primitives: Sequence[str],
    *,
    channel_divisors: int | Sequence[int] = 1,
    channel_attention: ChannelAttention | None = None,
    edge_attentions: Sequence[str] = (),
    conv_groups: int = 1,
    edge_factors: int = 0,
    init_channels: int = 16,
    num_cells: int = 8,
    num_classes: int = 10,
    num_nodes: int = topology.NUM_NODES,
    stem: Stem = "cifar",
    size: int | Size | None = None,
) -> Cost:
    """Return the cost of a search network; every edge holds all primitives.

    Args:
      primitives: candidates of an edge.
      channel_divisors: K, or one K per cell from the first; 1/K of the channels enter
        the operations.
      channel_attention: the attention over channels of every edge, if any.
      edge_attentions: attention candidates of every edge (Att-DARTS).
      conv_groups: groups of the 1x1 convolutions of an edge, each with weights of its
        own (G-DARTS-A).
      edge_factors: trained factors of every edge, one per group (G-DARTS-A).
      init_channels: channels of the first cells; doubled at every reduction.
      num_cells: cells in all; reductions at one and two thirds.
      num_classes: outputs of the classifier.
      num_nodes: intermediate nodes of a cell.
      stem: layout in front of the cells; three times ``init_channels`` wide.
      size: side, or (height, width), of an image in pixels; default 32, or 224.

    Raises:
      UserError: the channels of a cell are not divisible by its K, or there are
        fewer K than cells.

    >>> from adarts_jax.space.operations import DARTS_PRIMITIVES
    >>> search_network_cost(DARTS_PRIMITIVES, channel_divisors=4).parameters
    299578
    """
    pixels = image_size(stem, size)
    stem_channels = SEARCH_STEM_MULTIPLIER * init_channels
    places = place_cells(
        num_cells=num_cells,
        init_channels=init_channels,
        stem=stem,
        stem_channels=stem_channels,
        concat=dict.fromkeys(topology.CELL_TYPES, num_nodes),
        size=pixels,
    )
    costs = [stem_cost(stem, stem_channels, pixels)]
    for place, divisor in zip(places, _divisors(channel_divisors, places), strict=True):
        costs.append(preprocess_cost(place, affine=False))
        for source, _ in topology.edge_sources(num_nodes):
            mixed = _mixed_cost(place, source, primitives, divisor * conv_groups)
            costs += [mixed] * conv_groups + [Cost(edge_factors, 0)]
            costs.append(_attentions_cost(place, edge_attentions))
            costs.append(
                _channel_attention_cost(
                    channel_attention, place.channels, len(primitives)
                )
            )
    costs.append(linear(num_nodes * places[-1].channels, num_classes))
    return total(costs)


def _derived_places(
    genotype: Genotype, init_channels: int, num_cells: int, stem: Stem, pixels: Size
) -> list[CellPlace]:
    return place_cells(
        num_cells=num_cells,
        init_channels=init_channels,
        stem=stem,
        stem_channels=DERIVED_STEM_MULTIPLIER[stem] * init_channels,
        concat={name: len(genotype.concat(name)) for name in topology.CELL_TYPES},
        size=pixels,
    )


def _features(genotype: Genotype, place: CellPlace) -> int:
    """Return the channels of a cell's output."""
    return place.channels * len(genotype.concat(place.cell_type))


def _derived_cell_cost(genotype: Genotype, place: CellPlace) -> Cost:
    costs = [preprocess_cost(place, affine=True)]
    for op, source, attention in genotype.entries(place.cell_type):
        operation = OPERATION_COSTS[op]
        costs.append(
            operation(place.channels, place.channels, *place.edge_from(source))
        )
        costs.append(_attentions_cost(place, (attention,) if attention else ()))
    return total(costs)


def _mixed_cost(
    place: CellPlace, source: int, primitives: Sequence[str], divisor: int
) -> Cost:
    """All primitives of one edge, on 1/divisor of the channels."""
    width = place.channels // divisor
    edge = place.edge_from(source)
    return total(
        OPERATION_COSTS[name](width, width, *edge, affine=False) for name in primitives
    )


def _attentions_cost(place: CellPlace, attentions: Sequence[str]) -> Cost:
    """Attentions stand after the operation, so they see the size of the output."""
    return total(
        ATTENTION_COSTS[name](place.channels, *place.size_out) for name in attentions
    )


def _channel_attention_cost(
    kind: ChannelAttention | None, channels: int, num_primitives: int
) -> Cost:
    """The attention that selects the channels of one edge."""
    if kind is None:
        return FREE
    if kind == "adarts":  # one MLP, applied to the mean and to the maximum
        half = linear(channels, channels // 2, bias=False)
        return Cost(2 * half.parameters, 4 * half.multiply_adds)
    return total(
        [
            linear(2 * channels, num_primitives, bias=False),
            Cost(0, num_primitives**2),  # the product with AᵀA
            linear(num_primitives, channels, bias=False),
        ]
    )


def _divisors(
    channel_divisors: int | Sequence[int], places: Sequence[CellPlace]
) -> list[int]:
    if isinstance(channel_divisors, int):
        divisors = [channel_divisors] * len(places)
    else:
        divisors = list(channel_divisors)[: len(places)]
    if len(divisors) < len(places):
        raise UserError(
            f"channel_divisors has {len(divisors)} values for {len(places)} cells"
        )
    for index, (place, divisor) in enumerate(zip(places, divisors, strict=True)):
        if divisor < 1 or place.channels % divisor:
            raise UserError(
                f"the {place.channels} channels of cell {index} are not divisible by "
                f"channel_divisors={divisor}; change init_channels or the divisor"
            )
    return divisors
