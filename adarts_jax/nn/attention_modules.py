"""Attention after an operation (Att-DARTS), for a stack of equal edges.

Images have the channels of all edges side by side (edge-major); every edge has weights
of its own. An attention that is a mask returns *gates*: the mask is the product of
``sigmoid(gate)`` (BAM: ``1 + sigmoid(gate)``), so that masks and their logarithms are
both exact.

References:
  Nakai, Matsubara, Uehara, "Att-DARTS: Differentiable Neural Architecture Search for
  Attention", IJCNN 2020, III; the modules are those of Hu et al. (SE, GE), Park et al.
  (BAM), Woo et al. (CBAM) and Chen et al. (double attention), all in 2018.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.nn.batch_norm import MOMENTUM, BatchNorm
from adarts_jax.nn.channel_attention import pool_state
from adarts_jax.nn.edge_layers import BiasedPointwise, Convolution, Linear
from adarts_jax.nn.layers import FactorizedReduceBn, torch_uniform
from adarts_jax.space.attention_cost import quarter_width, squeezed_width

Images = Float[Array, "batch height width edge_channel"]
Gates = Float[Array, "batch height width edge channel"]  # sides may be 1

BamCombination = Literal["product", "sum"]

CBAM_MOMENTUM = 0.99  # share that is kept; PyTorch's number is 0.01


class SqueezeExcitation(nn.Module):
    """SE: two linear layers on the pooled channels; collections ``params``."""

    num_edges: int

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> tuple[Gates, ...]:
        """Return the gate, one number per image and channel."""
        mean = _split(x, self.num_edges).mean((1, 2))
        width = squeezed_width(mean.shape[-1])
        hidden = nn.relu(Linear(width, use_bias=False, name="fc1")(mean))
        gate = Linear(mean.shape[-1], use_bias=False, name="fc2")(hidden)
        return (gate[:, None, None],)


class Bam(nn.Module):
    """BAM: a channel branch and a dilated spatial branch.

    Attributes:
      num_edges: edges side by side.
      combination: how the branches meet: their product (published code, and that of
        BAM's authors) or their sum (text of the Att-DARTS paper).
    """

    num_edges: int
    combination: BamCombination = "product"

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> tuple[Gates, ...]:
        """Return the gate of ``1 + sigmoid``."""
        split, norm = _split(x, self.num_edges), functools.partial(_norm, train=train)
        channels = split.shape[-1]
        width = squeezed_width(channels)
        v = Linear(width, name="fc1")(split.mean((1, 2)))
        v = nn.relu(norm(v[:, None, None], "bn_channel"))[:, 0, 0]
        v = Linear(channels, name="fc2")(v)
        s = BiasedPointwise(width, self.num_edges, name="reduce")(x)
        s = nn.relu(norm(_split(s, self.num_edges), "bn_reduce"))
        for index in (0, 1):
            s = Convolution(3, width, dilation=4, name=f"conv_{index}")(s)
            s = nn.relu(norm(s, f"bn_{index}"))
        s = BiasedPointwise(1, self.num_edges, name="final")(_join(s))[..., None]
        if self.combination == "sum":
            return (v[:, None, None] + s,)
        return (v[:, None, None] * s,)


class Cbam(nn.Module):
    """CBAM: channel attention, then spatial attention on what that leaves."""

    num_edges: int

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> tuple[Gates, ...]:
        """Return the gates of channels and of places."""
        edges = self.num_edges
        channels = x.shape[-1] // edges
        fc1 = Linear(squeezed_width(channels), name="fc1")
        fc2 = Linear(channels, name="fc2")
        pooled = [v.reshape(len(x), edges, channels) for v in pool_state(x)]
        of_channels = sum(fc2(nn.relu(fc1(v))) for v in pooled)
        of_channels = jnp.asarray(of_channels)[:, None, None]
        attended = _split(x, edges) * nn.sigmoid(of_channels).astype(x.dtype)
        summary = jnp.stack([_first_maximum(attended), attended.mean(-1)], axis=-1)
        of_places = Convolution(7, 1, use_bias=False, name="conv")(summary)
        of_places = _norm(of_places, "bn", momentum=CBAM_MOMENTUM, train=train)
        return of_channels, of_places


class GatherExcite(nn.Module):
    """GE theta plus: a depthwise kernel as large as the map, then two layers.

    Its weights belong to one resolution: (height, width, edge * channel).
    """

    num_edges: int

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> tuple[Gates, ...]:
        """Return the gate, one number per image and channel."""
        _, height, width, total = x.shape
        shape, init = (height, width, total), torch_uniform(height * width)
        kernel = self.param("gather", init, shape).astype(x.dtype)
        gathered = jnp.einsum("bhwc,hwc->bc", x, kernel)
        split = gathered.reshape(len(x), 1, 1, self.num_edges, -1)
        v = _norm(split, "bn", train=train)[:, 0, 0]
        narrow = squeezed_width(v.shape[-1])
        hidden = nn.relu(Linear(narrow, use_bias=False, name="fc1")(v))
        gate = Linear(v.shape[-1], use_bias=False, name="fc2")(hidden)
        return (gate[:, None, None],)


class DoubleAttention(nn.Module):
    """Double attention: gather features over all places, hand them back to each.

    ``y = x + W G V`` with ``G = A B^T``; B is a distribution over places, V over
    features.
    """

    num_edges: int

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Images:
        """Return attended images; this attention is no mask."""
        edges = self.num_edges
        channels = x.shape[-1] // edges
        width = quarter_width(channels)

        def project(name: str) -> Float[Array, "batch place edge feature"]:
            y = BiasedPointwise(width, edges, name=name)(x)
            return y.reshape(len(x), -1, edges, width)

        a, b, v = project("a"), project("b"), project("v")
        b, v = jax.nn.softmax(b, axis=1), jax.nn.softmax(v, axis=-1)
        gathered = jnp.einsum("bpei,bpej->beij", a, b)
        z = jnp.einsum("beij,bpej->bpei", gathered, v)
        z = z.reshape(*x.shape[:-1], edges * width)
        return x + BiasedPointwise(channels, edges, name="z")(z)


def _first_maximum(x: Float[Array, "... channel"]) -> Float[Array, "..."]:
    """Return the maximum over the channels; the first of equals gets the gradient.

    Without comparing values, as the gradient of ``max`` does: XLA may compute them
    twice, not quite equal.
    """
    best = jax.nn.one_hot(jnp.argmax(x, axis=-1), x.shape[-1], dtype=x.dtype)
    return (x * best).sum(-1)


def _split(x: Images, edges: int) -> Float[Array, "batch height width edge channel"]:
    return x.reshape(*x.shape[:-1], edges, x.shape[-1] // edges)


def _join(x: Float[Array, "batch height width edge channel"]) -> Images:
    return x.reshape(*x.shape[:3], -1)


def _norm(
    x: Float[Array, "batch height width edge channel"],
    name: str,
    *,
    train: bool,
    momentum: float = MOMENTUM,
) -> Float[Array, "batch height width edge channel"]:
    """Batch norm of every edge's channels; parameters are side by side."""
    norm = BatchNorm(momentum=momentum, name=name)
    return norm(_join(x), train=train).reshape(x.shape)


MASK_MODULES: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "SE": SqueezeExcitation,
        "BAM": Bam,
        "CBAM": Cbam,
        "GE_theta-plus": GatherExcite,
    }
)
"""Attentions that are masks and return gates, by name."""


def mask_of(name: str, gates: tuple[Gates, ...]) -> Gates:
    """Return the mask that a module's gates stand for."""
    if name == "BAM":
        return 1 + nn.sigmoid(gates[0])
    return functools.reduce(jnp.multiply, map(nn.sigmoid, gates))


def log_mask_of(name: str, gates: tuple[Gates, ...]) -> Gates:
    """Return the logarithm of the mask, finite wherever the gates are."""
    if name == "BAM":
        return jnp.log1p(nn.sigmoid(gates[0]))
    return functools.reduce(jnp.add, map(nn.log_sigmoid, gates))


def attention_module(
    name: str, num_edges: int = 1, *, bam_combination: BamCombination = "product"
) -> nn.Module:
    """Make the module of an attention, to be called with images.

    Args:
      name: any attention but ``Identity``.
      num_edges: edges side by side in the channels.
      bam_combination: see ``Bam``.
    """
    if name == "DoubleAttention":
        return DoubleAttention(num_edges, name=name)
    if name == "BAM":
        return Bam(num_edges, bam_combination, name=name)
    return MASK_MODULES[name](num_edges, name=name)


class AttentionLayer(nn.Module):
    """One attention as a layer by itself, of a derived network.

    Attributes:
      attention: any of ``operations.ATTENTIONS``.
      channels: width, in and out.
      stride: 2 puts a factorized reduction in front.
      bam_combination: see ``Bam``.
    """

    attention: str
    channels: int
    stride: int = 1
    bam_combination: BamCombination = "product"

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Images:
        """Attend to the images."""
        if self.stride == 2:
            reduce = FactorizedReduceBn(self.channels, affine=False, name="reduce")
            x = reduce(x, train=train)
        if self.attention == "Identity":
            return x
        module = attention_module(self.attention, bam_combination=self.bam_combination)
        found = module(x, train=train)
        if self.attention not in MASK_MODULES:
            return found
        return _join(_split(x, 1) * mask_of(self.attention, found))
