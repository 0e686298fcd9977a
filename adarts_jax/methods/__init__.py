"""METHODS: every search method by name."""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType

from adarts_jax.edges.attended import AttendedEdges
from adarts_jax.edges.attentive import AttentiveEdges
from adarts_jax.edges.full import FullEdges
from adarts_jax.edges.grouped import INITIAL, GroupedEdges
from adarts_jax.edges.partial import PartialEdges
from adarts_jax.errors import UserError, did_you_mean
from adarts_jax.methods.method import Method as Method
from adarts_jax.nn.channel_attention import AlphaAttention, MlpAttention
from adarts_jax.space.operations import (
    ALPHA_ADARTS_PRIMITIVES,
    ATTENTIONS,
    DARTS_PRIMITIVES,
)

_DARTS = Method(
    name="darts",
    reference="Liu, Simonyan, Yang, DARTS, ICLR 2019",
    primitives=DARTS_PRIMITIVES,
    edges=FullEdges,
    edge_normalization=False,
    discretize_rule="darts",
)

_PC_DARTS = Method(
    name="pc_darts",
    reference="Xu et al., PC-DARTS, ICLR 2020",
    primitives=DARTS_PRIMITIVES,
    edges=PartialEdges,
    edge_normalization=True,
    discretize_rule="edge_weighted",
    channel_divisor=4,
    options=("channel_choice",),
)

_ADARTS = Method(
    name="adarts",
    reference="Xue, Qin, ADARTS, IEEE TII 19(5), 2023",
    primitives=DARTS_PRIMITIVES,
    edges=functools.partial(AttendedEdges, attention=MlpAttention),
    edge_normalization=True,
    discretize_rule="edge_weighted",
    channel_divisor=4,
    options=("channel_scores",),
)

_ALPHA_ADARTS = Method(
    name="alpha_adarts",
    reference="alpha-ADARTS (Cxllxc/alpha-ADARTS; IEEE document 10933613)",
    primitives=ALPHA_ADARTS_PRIMITIVES,
    edges=functools.partial(AttendedEdges, attention=AlphaAttention),
    edge_normalization=True,
    discretize_rule="edge_weighted",
    channel_divisor=4,
    options=("channel_scores",),
    biased_primitive="sep_conv_5x5",
)

_ATT_DARTS_S = Method(
    name="att_darts_s",
    reference="Nakai, Matsubara, Uehara, Att-DARTS, IJCNN 2020, eq. 15 and 16",
    primitives=DARTS_PRIMITIVES,
    edges=functools.partial(AttentiveEdges, attentions=ATTENTIONS),
    edge_normalization=False,
    discretize_rule="darts",
    options=("bam_combination",),
    attentions=ATTENTIONS,
)

# A product of masks: double attention is none.
_MASKS = tuple(name for name in ATTENTIONS if name != "DoubleAttention")

_ATT_DARTS_P = dataclasses.replace(
    _ATT_DARTS_S,
    name="att_darts_p",
    reference="Nakai, Matsubara, Uehara, Att-DARTS, IJCNN 2020, eq. 17",
    edges=functools.partial(AttentiveEdges, attentions=_MASKS, combination="product"),
    attentions=_MASKS,
)

_GROUP_OPTIONS = (
    "group_initial",
    "group_training",
    "group_activation",
    "group_place",
    "conv_groups",
)

_DARTS_WITH_ATTENTION = Method(
    name="darts_with_attention",
    reference="G-DARTS-A, sections 4.1 and 5.2 (DARTS-with-Attention)",
    primitives=DARTS_PRIMITIVES,
    edges=GroupedEdges,
    edge_normalization=False,
    discretize_rule="darts",
    options=_GROUP_OPTIONS,
    num_groups=len(INITIAL),
)

_G_DARTS_A = dataclasses.replace(
    _DARTS_WITH_ATTENTION,
    name="g_darts_a",
    reference="G-DARTS-A, sections 4.2 and 5.2",
    edges=functools.partial(GroupedEdges, conv_groups=len(INITIAL)),
)

_G_PC_DARTS_A = dataclasses.replace(
    _DARTS_WITH_ATTENTION,
    name="g_pc_darts_a",
    reference="G-DARTS-A, sections 4.3 and 5.3 (G-PC-DARTS-A)",
    edges=functools.partial(
        GroupedEdges,
        conv_groups=len(INITIAL),
        group_kernels="shared",
        group_place="after",
        shuffle=True,
    ),
    edge_normalization=True,
    discretize_rule="edge_weighted",
    options=(*_GROUP_OPTIONS, "group_kernels", "shuffle"),
)

_RANDOM = dataclasses.replace(
    _DARTS,
    name="random",
    reference="uniform genotypes of the space of DARTS, as in its table 1",
    options=("weight_sharing",),
    trains_architecture=False,
)

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            _DARTS,
            _PC_DARTS,
            _ADARTS,
            _ALPHA_ADARTS,
            _ATT_DARTS_S,
            _ATT_DARTS_P,
            _DARTS_WITH_ATTENTION,
            _G_DARTS_A,
            _G_PC_DARTS_A,
            _RANDOM,
        )
    }
)


def find_method(name: str) -> Method:
    """Look a method up.

    Raises:
      UserError: no method has this name.
    """
    if name not in METHODS:
        raise UserError(
            f"unknown method '{name}'{did_you_mean(name, METHODS)}"
            f" (known: {', '.join(METHODS)})"
        )
    return METHODS[name]
