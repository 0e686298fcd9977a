"""Names and layouts of the attention modules of Att-DARTS."""

from collections.abc import Iterator

from adarts_jax.space.attention_cost import quarter_width, squeezed_width
from adarts_jax.torch_weights.layouts import Rule
from adarts_jax.torch_weights.stem_rules import norm_rules

Path = tuple[str, ...]


def attention_rules(
    name: str, key: str, path: Path, *, row: int = 0, channels: int
) -> Iterator[Rule]:
    """Yield the rules of one attention of one edge.

    Args:
      name: of the attention; ``Identity`` has no weights.
      key: of the module in the state dict.
      path: of our module, a stack of edges.
      row: place of the edge in the stack.
      channels: width of the edge.
    """
    key = f"{key}._mask"
    match name:
        case "SE":
            yield from _linear(f"{key}.excitation.0", (*path, "fc1"), row, bias=False)
            yield from _linear(f"{key}.excitation.2", (*path, "fc2"), row, bias=False)
        case "BAM":
            yield from _bam(key, path, row, channels)
        case "CBAM":
            mlp = f"{key}.ChannelAttention.mlp"
            yield from _linear(f"{mlp}.1", (*path, "fc1"), row)
            yield from _linear(f"{mlp}.3", (*path, "fc2"), row)
            spatial = f"{key}.SpatialAttention.spatial"
            yield _conv(f"{spatial}.conv.weight", (*path, "conv"), row)
            index = (slice(row, row + 1),)
            yield from norm_rules(f"{spatial}.bn", (*path, "bn"), index=index)
        case "GE_theta-plus":
            mine = slice(row * channels, (row + 1) * channels)
            index = (slice(None), slice(None), mine)
            gather = ("params", *path, "gather")
            yield Rule(f"{key}.downop.dwconv.weight", gather, "depthwise", index)
            yield from norm_rules(f"{key}.downop.bn", (*path, "bn"), index=(mine,))
            for layer, name in (("0", "fc1"), ("2", "fc2")):
                kernel = ("params", *path, name, "kernel")
                yield Rule(f"{key}.mlp.{layer}.weight", kernel, "pointwise", (row,))
        case "DoubleAttention":
            features = quarter_width(channels)
            for layer, name, width in (
                ("convA", "a", features),
                ("convB", "b", features),
                ("convV", "v", features),
                ("convZ", "z", channels),
            ):
                yield from _pointwise(f"{key}.{layer}", (*path, name), row, width)


def _bam(key: str, path: Path, row: int, channels: int) -> Iterator[Rule]:
    width = squeezed_width(channels)
    mine = (slice(row * width, (row + 1) * width),)
    gate = f"{key}.channel_att.gate_c.gate_c"
    yield from _linear(f"{gate}_fc_0", (*path, "fc1"), row)
    yield from norm_rules(f"{gate}_bn_1", (*path, "bn_channel"), index=mine)
    yield from _linear(f"{gate}_fc_final", (*path, "fc2"), row)
    gate = f"{key}.spatial_att.gate_s.gate_s"
    yield from _pointwise(f"{gate}_conv_reduce0", (*path, "reduce"), row, width)
    yield from norm_rules(f"{gate}_bn_reduce0", (*path, "bn_reduce"), index=mine)
    for layer in (0, 1):
        yield _conv(f"{gate}_conv_di_{layer}.weight", (*path, f"conv_{layer}"), row)
        bias = ("params", *path, f"conv_{layer}", "bias")
        yield Rule(f"{gate}_conv_di_{layer}.bias", bias, "same", (row,))
        yield from norm_rules(
            f"{gate}_bn_di_{layer}", (*path, f"bn_{layer}"), index=mine
        )
    yield from _pointwise(f"{gate}_conv_final", (*path, "final"), row, 1)


def _linear(key: str, path: Path, row: int, *, bias: bool = True) -> Iterator[Rule]:
    yield Rule(f"{key}.weight", ("params", *path, "kernel"), "linear", (row,))
    if bias:
        yield Rule(f"{key}.bias", ("params", *path, "bias"), "same", (row,))


def _conv(key: str, path: Path, row: int) -> Rule:
    index = (slice(None), slice(None), row)
    return Rule(key, ("params", *path, "kernel"), "conv", index)


def _pointwise(key: str, path: Path, row: int, width: int) -> Iterator[Rule]:
    kernel = ("params", *path, "pointwise", "kernel")
    yield Rule(f"{key}.weight", kernel, "pointwise", (0, row))
    mine = (slice(row * width, (row + 1) * width),)
    yield Rule(f"{key}.bias", ("params", *path, "bias"), "same", mine)
