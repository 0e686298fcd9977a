"""Convolutional layers of the search space, for a stack of operations and of edges.

Arrays are (op, batch, height, width, channel). The op axis stacks operations of one
family (separable 3 x 3 and 5 x 5, say); the channels of ``num_edges`` equal edges lie
side by side (edge-major), and no channel of one edge ever meets another edge's. A
single layer of a derived network is the case of one operation and one edge.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from adarts_jax.nn import windows
from adarts_jax.nn.batch_norm import BatchNorm
from adarts_jax.nn.depthwise import depthwise_conv
from adarts_jax.nn.initial_weights import torch_uniform

Images = Float[Array, "*op batch height width channel"]

# Up to this many channels one product with a block-diagonal matrix beats a batch of
# small products, zeros included (measured on CPU, docs/performance.md).
BLOCK_DIAGONAL_CHANNELS = 128


def pointwise(x: Images, kernel: Float[Array, "op edge i o"]) -> Images:
    """1 x 1 convolution of every operation and edge with its own matrix.

    Args:
      x: images with ``edge * i`` channels, edge-major.
      kernel: one matrix per operation and edge.

    Returns:
      Images with ``edge * o`` channels, of the type of ``x``.
    """
    # One axis of pixels: the gradient of a product over three of them is transposed.
    kernel = kernel.astype(x.dtype)
    ops, edges, fan_in, fan_out = kernel.shape
    if edges * max(fan_in, fan_out) <= max(BLOCK_DIAGONAL_CHANNELS, fan_in, fan_out):
        eye = jnp.eye(edges, dtype=kernel.dtype)[None, :, None, :, None]
        matrix = (kernel[:, :, :, None, :] * eye).reshape(
            ops, edges * fan_in, edges * fan_out
        )
        pixels = x.reshape(ops, -1, edges * fan_in)
        mixed = jnp.einsum("opi,oij->opj", pixels, matrix)
    else:
        pixels = x.reshape(ops, -1, edges, fan_in)
        mixed = jnp.einsum("opei,oeij->opej", pixels, kernel)
    return mixed.reshape(*x.shape[:-1], edges * fan_out)


class Pointwise(nn.Module):
    """1 x 1 convolution without bias; parameter ``kernel`` (op, edge, in, out)."""

    channels: int
    num_ops: int = 1
    num_edges: int = 1

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Map the channels of every edge to ``channels``."""
        fan_in = x.shape[-1] // self.num_edges
        shape = (self.num_ops, self.num_edges, fan_in, self.channels)
        return pointwise(x, self.param("kernel", torch_uniform(fan_in), shape))


class Depthwise(nn.Module):
    """Depthwise convolutions; parameters ``kernel_KxK`` (K, K, edge * channel)."""

    sizes: tuple[int, ...]
    stride: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Filter every channel by itself, once per size."""
        kernels = tuple(
            self.param(f"kernel_{k}x{k}", torch_uniform(k * k), (k, k, x.shape[-1]))
            for k in self.sizes
        )
        return depthwise_conv(x, kernels, stride=self.stride, dilation=self.dilation)


class ReluConvBn(nn.Module):
    """ReLU, 1 x 1 convolution, batch norm: brings a cell input to the cell's width."""

    channels: int
    affine: bool = True

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Images:
        """Return images with ``channels`` channels."""
        x = Pointwise(self.channels, name="pointwise")(nn.relu(x))
        return BatchNorm(self.affine, name="bn")(x, train=train)


class FactorizedReduce(nn.Module):
    """Halve the resolution without losing a pixel's neighbourhood.

    A strided 1 x 1 convolution on the even pixels and another on the odd ones, each to
    half of the channels; concatenate. Height and width must be even. ReLU before and
    batch norm after it stand where it is used.

    Raises:
      ValueError: the number of channels is odd.
    """

    channels: int
    num_edges: int = 1

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Return images of half the size with ``channels`` channels per edge."""
        if self.channels % 2:
            raise ValueError(
                f"channels={self.channels} of a factorized reduction must be even"
            )
        half, edges = self.channels // 2, self.num_edges
        # Without the barrier XLA puts the strided slices into the products on a GPU,
        # where that can end the process (openxla/xla#47381).
        even, odd = lax.optimization_barrier(windows.diagonal_pixels(x))
        even = Pointwise(half, 1, edges, name="pointwise_0")(even)
        odd = Pointwise(half, 1, edges, name="pointwise_1")(odd)
        halves = [y.reshape(*y.shape[:-1], edges, half) for y in (even, odd)]
        joined = jnp.concatenate(halves, axis=-1)
        return joined.reshape(*even.shape[:-1], edges * self.channels)


class FactorizedReduceBn(nn.Module):
    """ReLU, factorized reduction, batch norm: a cell input of twice the resolution."""

    channels: int
    affine: bool = True

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Images:
        """Return images of half the size with ``channels`` channels."""
        x = FactorizedReduce(self.channels, name="reduce")(nn.relu(x))
        return BatchNorm(self.affine, name="bn")(x, train=train)


class SeparableConv(nn.Module):
    """Depthwise, pointwise, batch norm, ReLU, depthwise, pointwise.

    The stride is in the first half, the intermediate width is the input's. The first
    ReLU and the last batch norm stand where the layer is used.
    """

    sizes: tuple[int, ...]
    channels: int
    stride: int = 1
    num_edges: int = 1
    affine: bool = True

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Images:
        """Apply one separable convolution per size."""
        ops, edges = len(self.sizes), self.num_edges
        width = x.shape[-1] // edges
        x = Depthwise(self.sizes, self.stride, name="depthwise_0")(x)
        x = Pointwise(width, ops, edges, name="pointwise_0")(x)
        x = BatchNorm(self.affine, rectify=True, name="bn_0")(x, train=train)
        x = Depthwise(self.sizes, name="depthwise_1")(x)
        return Pointwise(self.channels, ops, edges, name="pointwise_1")(x)


class DilatedConv(nn.Module):
    """Depthwise with dilation 2, pointwise; ReLU and batch norm stand outside."""

    sizes: tuple[int, ...]
    channels: int
    stride: int = 1
    num_edges: int = 1

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Apply one dilated convolution per size."""
        x = Depthwise(self.sizes, self.stride, 2, name="depthwise")(x)
        ops = len(self.sizes)
        return Pointwise(self.channels, ops, self.num_edges, name="pointwise")(x)


class FactorizedConv7(nn.Module):
    """1 x 7 then 7 x 1 dense convolution (NASNet's conv_7x1_1x7).

    One operation and one edge only; ReLU and batch norm stand outside.
    """

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Stride along width in the first, along height in the second convolution."""
        y = x[0]
        for name, vertical in (("conv_0", False), ("conv_1", True)):
            conv = nn.Conv(
                self.channels,
                (7, 1) if vertical else (1, 7),
                (self.stride, 1) if vertical else (1, self.stride),
                padding=((3, 3), (0, 0)) if vertical else ((0, 0), (3, 3)),
                use_bias=False,
                kernel_init=torch_uniform(7 * y.shape[-1]),
                dtype=x.dtype,
                name=name,
            )
            y = conv(y)
        return y[None]
