"""Edges of Att-DARTS: attention candidates after the mixed operation."""

import functools
import operator
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.architecture import CellWeights
from adarts_jax.edges import flow
from adarts_jax.edges.mixed_op import MixedOp
from adarts_jax.edges.wave import Wave
from adarts_jax.nn.attention_modules import (
    MASK_MODULES,
    BamCombination,
    attention_module,
    log_mask_of,
    mask_of,
)

Images = Float[Array, "batch height width channel"]


class MixedAttention(nn.Module):
    """``y = sum_a t_a att_a(h)``, or ``y = exp(sum_a t_a log m_a(h)) h``.

    Both for every edge of a stack. Masks are collected first, because
    ``sum_a t_a m_a h = (sum_a t_a m_a) h``.

    Attributes:
      attentions: candidates, in the order of the logits' columns.
      num_edges: edges side by side in the channels of ``h``.
      combination: ``"sum"`` (Att-DARTS-S) or ``"product"`` (Att-DARTS-P, masks only).
      bam_combination: see ``attention_modules.Bam``.

    References:
      Nakai, Matsubara, Uehara, "Att-DARTS", IJCNN 2020, equations 15 to 17.
    """

    attentions: tuple[str, ...]
    num_edges: int
    combination: Literal["sum", "product"] = "sum"
    bam_combination: BamCombination = "product"

    @nn.compact
    def __call__(
        self, h: Images, weights: Float[Array, "edge attention"], *, train: bool
    ) -> Images:
        """Mix the candidates of every edge."""
        split = h.reshape(*h.shape[:3], self.num_edges, -1)
        is_sum = self.combination == "sum"
        masks, others = [], []
        for column, name in enumerate(self.attentions):
            weight = weights[:, column][None, None, None, :, None]
            if name == "Identity":
                if is_sum:
                    masks.append(weight)
                continue  # its mask is 1, the logarithm 0
            module = attention_module(
                name, self.num_edges, bam_combination=self.bam_combination
            )
            found = module(h, train=train)
            if name in MASK_MODULES:
                mask = mask_of(name, found) if is_sum else log_mask_of(name, found)
                masks.append(weight * mask)
            else:
                others.append(weight * found.reshape(split.shape))
        mask = functools.reduce(operator.add, masks)
        y = split * (mask if is_sum else jnp.exp(mask))
        return functools.reduce(operator.add, [y, *others]).reshape(h.shape)


class AttentiveEdges(nn.Module):
    """One wave of edges: the mixed operation of DARTS, then mixed attention.

    Attributes:
      wave: which edges.
      primitives: candidate operations, in the order of alpha's columns.
      stride: 2 on the edges that leave the inputs of a reduction cell.
      channel_divisor: 1; there is nothing to divide.
      attentions: see ``MixedAttention``, as are the following.
      combination: sum or product of masks.
      bam_combination: of BAM's branches.
    """

    wave: Wave
    primitives: tuple[str, ...]
    stride: int
    channel_divisor: int = 1
    attentions: tuple[str, ...] = ()
    combination: Literal["sum", "product"] = "sum"
    bam_combination: BamCombination = "product"

    @nn.compact
    def __call__(
        self, states: tuple[Images, ...], weights: CellWeights, *, train: bool
    ) -> list[Images]:
        """Return what this wave adds to each of its targets."""
        assert weights.attention is not None
        mixed = MixedOp(self.primitives, self.wave.size, self.stride, name="ops")
        h = mixed(
            flow.enter(self.wave, states),
            flow.take_rows(self.wave, weights.op),
            train=train,
        )
        attention = MixedAttention(
            self.attentions,
            self.wave.size,
            self.combination,
            self.bam_combination,
            name="attentions",
        )
        rows = flow.take_rows(self.wave, weights.attention)
        return flow.leave(self.wave, attention(h, rows, train=train))
