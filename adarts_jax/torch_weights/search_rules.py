"""Names and layouts of the PyTorch search networks (supernets).

The originals keep one module per edge and operation; ours are stacked, so a rule says
which rows of a stacked array belong to which edge and operation.
"""

from collections.abc import Iterator

from adarts_jax.edges.mixed_op import normalized_columns
from adarts_jax.edges.wave import cell_waves
from adarts_jax.networks.search_network import SearchNetwork
from adarts_jax.nn.primitives import find_primitive, group_by_family
from adarts_jax.space import topology
from adarts_jax.torch_weights.layouts import Rule

Path = tuple[str, ...]


def search_rules(network: SearchNetwork) -> list[Rule]:
    """Return one rule per tensor of the network's PyTorch state dict."""
    rules = [
        Rule("stem.0.weight", ("params", "stem_conv", "kernel"), "conv"),
        *_affine_norm("stem.1", ("stem_bn",)),
        Rule("classifier.weight", ("params", "classifier", "kernel"), "linear"),
        Rule("classifier.bias", ("params", "classifier", "bias")),
    ]
    reductions = topology.reduction_cells(network.num_cells)
    width = network.init_channels
    for cell in range(network.num_cells):
        width *= 2 if cell in reductions else 1
        key, path = f"cells.{cell}", (f"cell_{cell}",)
        halved = cell - 1 in reductions
        rules += _preprocess(
            f"{key}.preprocess0", (*path, "preprocess0"), halved=halved
        )
        rules += _preprocess(f"{key}.preprocess1", (*path, "preprocess1"), halved=False)
        selected = width // network.channel_divisors[cell]
        for index, wave in enumerate(cell_waves(network.num_nodes)):
            stride = 2 if cell in reductions and index == 0 else 1
            for row, edge in enumerate(wave.edges):
                rules += _edge(
                    f"{key}._ops.{edge}",
                    (*path, f"wave_{index}"),
                    row,
                    selected,
                    network.primitives,
                    stride,
                )
    return rules


def _affine_norm(key: str, path: Path) -> Iterator[Rule]:
    yield Rule(f"{key}.weight", ("params", *path, "scale"))
    yield Rule(f"{key}.bias", ("params", *path, "bias"))
    yield from _statistics(key, path, ())


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
    key: str,
    path: Path,
    row: int,
    width: int,
    primitives: tuple[str, ...],
    stride: int,
) -> Iterator[Rule]:
    """Rules of one edge: row ``row`` of its wave's stacked arrays."""
    attention = ("params", *path, "attention")
    yield Rule(f"{key}.ca.fc1.weight", (*attention, "fc1"), "pointwise", (row,))
    yield Rule(f"{key}.ca.fc2.weight", (*attention, "fc2"), "pointwise", (row,))
    channels = slice(row * width, (row + 1) * width)
    normalized = normalized_columns(primitives, stride)
    for stack in group_by_family(primitives):
        for op, column in enumerate(stack.columns):
            torch_op = f"{key}._ops.{column}"
            where = (*path, "ops", stack.family, "conv")
            if column in normalized or stack.family != "skip":
                yield from _operation(
                    torch_op, where, primitives[column], op, row, channels
                )
            if column in normalized:
                index = (normalized.index(column), channels)
                name = f"{torch_op}.{_last_norm(primitives[column])}"
                yield from _statistics(name, (*path, "ops", "bn"), index)


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
