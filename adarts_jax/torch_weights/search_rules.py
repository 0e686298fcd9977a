"""Names and layouts of the PyTorch search networks (supernets).

The originals keep one module per edge and operation; ours are stacked, so a rule says
which rows of a stacked array belong to which edge and operation.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from adarts_jax.edges.attended import AttendedEdges
from adarts_jax.edges.attentive import AttentiveEdges
from adarts_jax.edges.mixed_op import normalized_columns
from adarts_jax.edges.wave import cell_waves
from adarts_jax.networks.search_network import SearchNetwork, follows_reduction
from adarts_jax.nn.primitives import find_primitive, group_by_family
from adarts_jax.space import topology
from adarts_jax.torch_weights.attention_rules import attention_rules
from adarts_jax.torch_weights.layouts import Rule
from adarts_jax.torch_weights.stem_rules import stem_rules

Path = tuple[str, ...]


def search_rules(network: SearchNetwork) -> list[Rule]:
    """Return one rule per tensor of the network's PyTorch state dict."""
    rules = [
        *stem_rules(network.stem),
        Rule("classifier.weight", ("params", "classifier", "kernel"), "linear"),
        Rule("classifier.bias", ("params", "classifier", "bias")),
    ]
    reductions = topology.reduction_cells(network.num_cells)
    width = network.init_channels
    for cell in range(network.num_cells):
        width *= 2 if cell in reductions else 1
        key, path = f"cells.{cell}", (f"cell_{cell}",)
        halved = follows_reduction(network, cell)
        rules += _preprocess(
            f"{key}.preprocess0", (*path, "preprocess0"), halved=halved
        )
        rules += _preprocess(f"{key}.preprocess1", (*path, "preprocess1"), halved=False)
        selected = width // network.channel_divisors[cell]
        for index, wave in enumerate(cell_waves(network.num_nodes)):
            stride = 2 if cell in reductions and index == 0 else 1
            for row, edge in enumerate(wave.edges):
                place = (*path, f"wave_{index}")
                rules += _edge(network, key, edge, place, row, selected, stride)
    return rules


def edge_class(network: SearchNetwork) -> Callable[..., Any]:
    """Return the class of the edges, whose settings may be bound already."""
    edges = network.edges
    return edges.func if isinstance(edges, functools.partial) else edges


def _statistics(key: str, path: Path, index: tuple) -> Iterator[Rule]:
    yield Rule(f"{key}.running_mean", ("batch_stats", *path, "mean"), "same", index)
    yield Rule(f"{key}.running_var", ("batch_stats", *path, "var"), "same", index)


def _preprocess(key: str, path: Path, *, halved: bool) -> Iterator[Rule]:
    if halved:
        for half in (0, 1):
            kernel = ("params", *path, "reduce", f"pointwise_{half}", "kernel")
            yield Rule(f"{key}.conv_{half + 1}.weight", kernel, "pointwise", (0, 0))
        yield from _statistics(f"{key}.bn", (*path, "bn"), ())
    else:
        kernel = ("params", *path, "pointwise", "kernel")
        yield Rule(f"{key}.op.1.weight", kernel, "pointwise", (0, 0))
        yield from _statistics(f"{key}.op.2", (*path, "bn"), ())


def _edge(
    network: SearchNetwork,
    key: str,
    edge: int,
    path: Path,
    row: int,
    width: int,
    stride: int,
) -> Iterator[Rule]:
    """Rules of one edge: row ``row`` of its wave's stacked arrays."""
    kind, ops = edge_class(network), f"{key}._ops.{edge}._ops"
    if kind is AttendedEdges:
        yield from _channel_attention(f"{key}._ops.{edge}.ca", path, row)
    if kind is AttentiveEdges:
        ops = f"{key}.layers.{edge}.first_layers"
        for column, name in enumerate(edge_attentions(network)):
            yield from attention_rules(
                name,
                f"{key}.layers.{edge}.second_layers.{column}",
                (*path, "attentions", name),
                row=row,
                channels=width,
            )
    place = (*path, "ops")
    yield from _mixed_op(ops, place, row, width, network.primitives, stride)


def edge_attentions(network: SearchNetwork) -> tuple[str, ...]:
    """Return the attention candidates of every edge, none for most methods."""
    return _setting(network, "attentions", ())


def has_average_scores(network: SearchNetwork) -> bool:
    """Whether the edges keep a running average of their attention."""
    return _setting(network, "channel_scores", "batch") == "average"


def _setting(network: SearchNetwork, name: str, default: Any) -> Any:
    edges = network.edges
    bound = edges.keywords if isinstance(edges, functools.partial) else {}
    return bound.get(name, default)


def _channel_attention(key: str, path: Path, row: int) -> Iterator[Rule]:
    for layer in ("fc1", "fc2"):
        where = ("params", *path, "attention", layer)
        yield Rule(f"{key}.{layer}.weight", where, "pointwise", (row,))


def _mixed_op(
    key: str,
    path: Path,
    row: int,
    width: int,
    primitives: tuple[str, ...],
    stride: int,
) -> Iterator[Rule]:
    """Rules of one mixed operation: row ``row`` of its wave's stacked arrays."""
    channels = slice(row * width, (row + 1) * width)
    normalized = normalized_columns(primitives, stride)
    for stack in group_by_family(primitives):
        for op, column in enumerate(stack.columns):
            torch_op = f"{key}.{column}"
            where = (*path, stack.family, "conv")
            if column in normalized or stack.family != "skip":
                yield from _operation(
                    torch_op, where, primitives[column], op, row, channels
                )
            if column in normalized:
                index = (normalized.index(column), channels)
                name = f"{torch_op}.{_last_norm(primitives[column])}"
                yield from _statistics(name, (*path, "bn"), index)


def _operation(
    key: str, path: Path, primitive: str, op: int, row: int, channels: slice
) -> Iterator[Rule]:
    """Weights (and inner batch norm) of one operation of one edge."""
    found = find_primitive(primitive)
    region = (slice(None), slice(None), channels)
    size = f"kernel_{found.size}x{found.size}"
    params = ("params", *path)
    match found.family:
        case "skip":
            for half in (0, 1):
                kernel = (*params, f"pointwise_{half}", "kernel")
                yield Rule(
                    f"{key}.conv_{half + 1}.weight", kernel, "pointwise", (0, row)
                )
        case "dil_conv":
            kernel = (*params, "depthwise", size)
            yield Rule(f"{key}.op.1.weight", kernel, "depthwise", region)
            kernel = (*params, "pointwise", "kernel")
            yield Rule(f"{key}.op.2.weight", kernel, "pointwise", (op, row))
        case "sep_conv":
            for half, (depthwise, pointwise) in enumerate(((1, 2), (5, 6))):
                kernel = (*params, f"depthwise_{half}", size)
                yield Rule(f"{key}.op.{depthwise}.weight", kernel, "depthwise", region)
                kernel = (*params, f"pointwise_{half}", "kernel")
                yield Rule(
                    f"{key}.op.{pointwise}.weight", kernel, "pointwise", (op, row)
                )
            yield from _statistics(f"{key}.op.3", (*path, "bn_0"), (op, channels))


def _last_norm(primitive: str) -> str:
    """Name of the batch norm that ends an operation, within its module."""
    return {"skip": "bn", "sep_conv": "op.7", "dil_conv": "op.3"}.get(
        find_primitive(primitive).family, "1"
    )
