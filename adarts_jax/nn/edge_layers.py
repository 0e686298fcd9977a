"""Plain layers with biases for a stack of equal edges, each with weights of its own.

What attention modules are made of. Channels are few, so that every dense convolution
is written as one of channel pairs.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from adarts_jax.nn.depthwise import depthwise_conv
from adarts_jax.nn.layers import Pointwise, torch_uniform

Images = Float[Array, "batch height width edge_channel"]
Vectors = Float[Array, "batch edge channel"]


class Linear(nn.Module):
    """One linear layer per edge; ``kernel`` (edge, in, out), ``bias`` (edge, out)."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Vectors) -> Vectors:
        """Map the channels of every edge."""
        edges, fan_in = x.shape[1:]
        init, shape = torch_uniform(fan_in), (edges, fan_in, self.features)
        y = jnp.einsum("bei,eio->beo", x, self.param("kernel", init, shape))
        if self.use_bias:
            y = y + self.param("bias", init, (edges, self.features))[None]
        return y


class Convolution(nn.Module):
    """One dense k x k convolution per edge, same size; (k, k, edge, in, out).

    Every pair of an input and an output channel is a channel of one depthwise
    convolution, whose lowering suits so few channels.
    """

    size: int
    features: int
    dilation: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width edge channel"]
    ) -> Float[Array, "batch height width edge feature"]:
        """Convolve the channels of every edge."""
        *space, edges, fan_in = x.shape
        pairs = edges * fan_in * self.features
        shape = (self.size, self.size, edges, fan_in, self.features)
        init = torch_uniform(self.size**2 * fan_in)
        kernel = self.param("kernel", init, shape)
        spread = jnp.repeat(x[..., None], self.features, -1).reshape(1, *space, pairs)
        kernels = (kernel.reshape(self.size, self.size, pairs),)
        y = depthwise_conv(spread, kernels, dilation=self.dilation)[0]
        y = y.reshape(*space, edges, fan_in, self.features).sum(-2)
        if self.use_bias:
            bias = self.param("bias", init, (edges, self.features))
            y = y + bias[None, None, None].astype(y.dtype)
        return y


class BiasedPointwise(nn.Module):
    """1 x 1 convolution with bias, one per edge."""

    features: int
    num_edges: int

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Map the channels of every edge."""
        fan_in = x.shape[-1] // self.num_edges
        y = Pointwise(self.features, 1, self.num_edges, name="pointwise")(x)
        bias = self.param("bias", torch_uniform(fan_in), (y.shape[-1],))
        return y + bias[None, None, None].astype(y.dtype)
