"""Names of the layers in front of the cells, the same in all PyTorch originals."""

from collections.abc import Iterator, Mapping

from adarts_jax.space.stack import Stem
from adarts_jax.torch_weights.layouts import Rule

# Convolution and batch norm of every layer of the stem.
_LAYERS: Mapping[Stem, tuple[tuple[str, str], ...]] = {
    "cifar": (("stem.0", "stem.1"),),
    "imagenet": (
        ("stem0.0", "stem0.1"),
        ("stem0.3", "stem0.4"),
        ("stem1.1", "stem1.2"),
    ),
}


def stem_rules(stem: Stem) -> Iterator[Rule]:
    """Yield the rules of the stem; the first is that of the first convolution."""
    for index, (conv, norm) in enumerate(_LAYERS[stem]):
        kernel = ("params", "stem", f"conv_{index}", "kernel")
        yield Rule(f"{conv}.weight", kernel, "conv")
        yield from norm_rules(norm, ("stem", f"bn_{index}"))


def norm_rules(
    key: str, path: tuple[str, ...], *, index: tuple[int | slice, ...] = ()
) -> Iterator[Rule]:
    """Yield the rules of an affine batch norm.

    Args:
      key: its name in the state dict.
      path: its name in our variables.
      index: region of our arrays, which may be stacked.
    """
    for theirs, collection, ours in (
        ("weight", "params", "scale"),
        ("bias", "params", "bias"),
        ("running_mean", "batch_stats", "mean"),
        ("running_var", "batch_stats", "var"),
    ):
        yield Rule(f"{key}.{theirs}", (collection, *path, ours), "same", index)
