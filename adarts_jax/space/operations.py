"""Names of candidate operations and attentions, and the order each method gives them.

Names only: what an operation computes is in ``adarts_jax.nn.primitives``, what it
costs in ``adarts_jax.space.operation_cost``. The order is part of a method, because
architecture parameters are indexed by it.
"""

from typing import Final, Literal

OperationKind = Literal["none", "skip", "pool", "convolution"]

DARTS_PRIMITIVES: Final = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The eight candidates of DARTS, PC-DARTS, ADARTS, G-DARTS-A and Att-DARTS."""

ALPHA_ADARTS_PRIMITIVES: Final = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "max_pool_5x5",
    "avg_pool_5x5",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The ten candidates of alpha-ADARTS."""

OPERATIONS: Final = (*ALPHA_ADARTS_PRIMITIVES, "sep_conv_7x7", "conv_7x1_1x7")
"""Every operation a genotype may name; the last two occur in NASNet and AmoebaNet."""

ATTENTIONS: Final = (
    "Identity",
    "SE",
    "BAM",
    "CBAM",
    "GE_theta-plus",
    "DoubleAttention",
)
"""The six attentions of Att-DARTS, in the original's order and spelling."""


def operation_kind(operation: str) -> OperationKind:
    """Return the family of an operation.

    >>> operation_kind("avg_pool_5x5"), operation_kind("skip_connect")
    ('pool', 'skip')
    """
    if operation == "none":
        return "none"
    if operation == "skip_connect":
        return "skip"
    return "pool" if "pool" in operation else "convolution"
