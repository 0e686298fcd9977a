"""How all pictures name the states of a cell and colour its operations."""

from typing import Final, NamedTuple

from adarts_jax.space.operations import operation_kind


class Family(NamedTuple):
    """Operations that are drawn alike.

    Attributes:
      name: for the legend.
      line: colour of borders and lines.
      fill: colour behind text; the fills differ in grey as well.
    """

    name: str
    line: str
    fill: str


FAMILIES: Final = {
    "convolution": Family("convolution", "#2b6cb0", "#d6e6f7"),
    "dilated": Family("dilated convolution", "#2f855a", "#bfe5cf"),
    "pool": Family("pooling", "#c05621", "#fdebd9"),
    "skip": Family("skip connection", "#718096", "#f7f8fa"),
    "none": Family("none", "#a0aec0", "#ffffff"),
    "attention": Family("attention", "#6b46c1", "#e5dcf7"),
}
INPUT_NAMES: Final = ("cₖ₋₂", "cₖ₋₁")
OUTPUT_NAME: Final = "cₖ"


def operation_family(operation: str) -> str:
    """Return the key of `FAMILIES` for an operation.

    >>> operation_family("dil_conv_5x5"), operation_family("conv_7x1_1x7")
    ('dilated', 'convolution')
    """
    if operation.startswith("dil_conv"):
        return "dilated"
    return operation_kind(operation)
