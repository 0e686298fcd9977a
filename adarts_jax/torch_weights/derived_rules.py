"""Names and layouts of the PyTorch derived networks, CIFAR and ImageNet layout.

The names are those of the published checkpoints: ``cells.3._ops.5.op.1.weight``.
"""

from collections.abc import Iterator

from adarts_jax.networks.derived_network import (
    DerivedNetwork,
    bottleneck_of,
    place_all,
)
from adarts_jax.nn.primitives import find_primitive
from adarts_jax.space.genotype import Entry
from adarts_jax.space.operations import ATTENTIONS
from adarts_jax.space.stack import CellPlace
from adarts_jax.torch_weights.attention_rules import attention_rules
from adarts_jax.torch_weights.layouts import Layout, Rule
from adarts_jax.torch_weights.stem_rules import norm_rules, stem_rules

Path = tuple[str, ...]


def derived_rules(network: DerivedNetwork) -> list[Rule]:
    """Return one rule per tensor of the network's PyTorch state dict, in its order."""
    rules = list(stem_rules(network.stem))
    for index, place in enumerate(place_all(network)):
        entries = network.genotype.entries(place.cell_type)
        key, path = f"cells.{index}", (f"cell_{index}",)
        rules += cell_rules(key, path, entries, place)
        rules += attention_rules(
            bottleneck := bottleneck_of(network, place),
            f"{key}._bottleneck",
            (*path, "bottleneck", bottleneck),
            channels=place.channels * len(network.genotype.concat(place.cell_type)),
        )
    if network.auxiliary:
        rules += _auxiliary(network)
    return [*rules, *_linear("classifier", ("classifier", "linear"))]


def cell_rules(
    key: str, path: Path, entries: tuple[Entry, ...], place: CellPlace
) -> Iterator[Rule]:
    """Yield the rules of one cell.

    Args:
      key: its name in the state dict.
      path: its name in our variables.
      entries: its operations.
      place: what it finds in front of it.
    """
    if place.after_reduction:
        yield from _factorized_reduce(
            f"{key}.preprocess0", (*path, "preprocess0", "reduce")
        )
        yield from norm_rules(f"{key}.preprocess0.bn", (*path, "preprocess0", "bn"))
    else:
        yield from _relu_conv_bn(f"{key}.preprocess0", (*path, "preprocess0"))
    yield from _relu_conv_bn(f"{key}.preprocess1", (*path, "preprocess1"))
    attends = any(entry.attention for entry in entries)  # then Att-DARTS' names
    first = "_first_layers" if attends else "_ops"
    for index, entry in enumerate(entries):
        stride, _, _ = place.edge_from(entry.source)
        yield from _layer(
            f"{key}.{first}.{index}",
            (*path, f"op_{index}"),
            entry.op,
            stride,
            place.channels,
            is_nested=place.cell_type == "reduce",
        )
    for index, entry in enumerate(entries):
        if entry.attention:
            yield from _layer(
                f"{key}._second_layers.{index}",
                (*path, f"attention_{index}"),
                entry.attention,
                1,
                place.channels,
            )


def _layer(
    key: str,
    path: Path,
    layer: str,
    stride: int,
    channels: int,
    *,
    is_nested: bool = False,
) -> Iterator[Rule]:
    """One layer of an edge: an operation, or an attention, which may be nested.

    In a reduction cell it stands behind a reduction or behind an identity.
    """
    if layer not in ATTENTIONS:
        yield from _operation(key, path, layer, stride)
        return
    if stride == 2:
        yield from _factorized_reduce(f"{key}.0", (*path, "reduce", "reduce"))
        for statistic in ("mean", "var"):
            where = ("batch_stats", *path, "reduce", "bn", statistic)
            yield Rule(f"{key}.0.bn.running_{statistic}", where)
    key = f"{key}.1" if is_nested else key
    yield from attention_rules(layer, key, (*path, layer), channels=channels)


def _operation(key: str, path: Path, primitive: str, stride: int) -> Iterator[Rule]:
    """Weights and batch norms of one operation; pools and identities have none."""
    found = find_primitive(primitive)
    conv = (*path, "op", "conv")
    window = f"kernel_{found.size}x{found.size}"
    match found.family:
        case "skip" if stride == 2:
            yield from _factorized_reduce(key, conv)
            yield from norm_rules(f"{key}.bn", (*path, "bn"))
        case "sep_conv":
            yield _depthwise(f"{key}.op.1", (*conv, "depthwise_0"), window)
            yield _pointwise(f"{key}.op.2", (*conv, "pointwise_0"))
            # The inner norm belongs to a stack of one operation.
            yield from norm_rules(f"{key}.op.3", (*conv, "bn_0"), index=(0,))
            yield _depthwise(f"{key}.op.5", (*conv, "depthwise_1"), window)
            yield _pointwise(f"{key}.op.6", (*conv, "pointwise_1"))
            yield from norm_rules(f"{key}.op.7", (*path, "bn"))
        case "dil_conv":
            yield _depthwise(f"{key}.op.1", (*conv, "depthwise"), window)
            yield _pointwise(f"{key}.op.2", (*conv, "pointwise"))
            yield from norm_rules(f"{key}.op.3", (*path, "bn"))
        case "conv_7x1_1x7":
            yield _kernel(f"{key}.1", (*conv, "conv_0"), "conv")
            yield _kernel(f"{key}.2", (*conv, "conv_1"), "conv")
            yield from norm_rules(f"{key}.3", (*path, "bn"))


def _auxiliary(network: DerivedNetwork) -> Iterator[Rule]:
    key, path = "auxiliary_head.features", ("auxiliary",)
    yield _kernel(f"{key}.2", (*path, "conv_0"), "conv")
    yield from norm_rules(f"{key}.3", (*path, "bn_0"))
    yield _kernel(f"{key}.5", (*path, "conv_1"), "conv")
    if network.stem == "cifar":
        yield from norm_rules(f"{key}.6", (*path, "bn_1"))
    yield from _linear("auxiliary_head.classifier", (*path, "classifier", "linear"))


def _relu_conv_bn(key: str, path: Path) -> Iterator[Rule]:
    yield _pointwise(f"{key}.op.1", (*path, "pointwise"))
    yield from norm_rules(f"{key}.op.2", (*path, "bn"))


def _factorized_reduce(key: str, path: Path) -> Iterator[Rule]:
    for half in (0, 1):
        yield _pointwise(f"{key}.conv_{half + 1}", (*path, f"pointwise_{half}"))


def _linear(key: str, path: Path) -> Iterator[Rule]:
    yield _kernel(key, path, "linear")
    yield Rule(f"{key}.bias", ("params", *path, "bias"))


def _kernel(key: str, path: Path, layout: Layout) -> Rule:
    return Rule(f"{key}.weight", ("params", *path, "kernel"), layout)


def _depthwise(key: str, path: Path, window: str) -> Rule:
    return Rule(f"{key}.weight", ("params", *path, window), "depthwise")


def _pointwise(key: str, path: Path) -> Rule:
    """A matrix; the first of one operation and one edge."""
    kernel = ("params", *path, "kernel")
    return Rule(f"{key}.weight", kernel, "pointwise", (0, 0))
