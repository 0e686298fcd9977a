"""The layers in front of the cells, and which of the two layouts an image calls for."""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from adarts_jax.nn.batch_norm import BatchNorm
from adarts_jax.nn.initial_weights import torch_uniform
from adarts_jax.space.stack import Stem

Images = Float[Array, "batch height width channel"]

# From here on the CIFAR layout costs nine times its usual work, and the ImageNet
# layout still leaves 3 x 3 pixels at the end.
IMAGENET_FROM_PIXELS = 96


def choose_stem(stem: Stem | Literal["auto"], image_size: tuple[int, int]) -> Stem:
    """Resolve ``"auto"``: the ImageNet layout from 96 pixels of the shorter side on.

    >>> choose_stem("auto", (32, 32)), choose_stem("auto", (224, 224))
    ('cifar', 'imagenet')
    """
    if stem != "auto":
        return stem
    return "imagenet" if min(image_size) >= IMAGENET_FROM_PIXELS else "cifar"


class CifarStem(nn.Module):
    """One 3 x 3 convolution and batch norm; keeps the resolution."""

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> tuple[Images, Images]:
        """Return both input states of the first cell, which are the same."""
        x = _conv3(images, self.channels, 1, self.dtype, "conv_0")
        x = BatchNorm(name="bn_0")(x, train=train)
        return x, x


class ImageNetStem(nn.Module):
    """Three strided 3 x 3 convolutions with batch norm: a quarter, then an eighth."""

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> tuple[Images, Images]:
        """Return the input states of the first cell, at 1/4 and 1/8 of the size."""
        x = _conv3(images, self.channels // 2, 2, self.dtype, "conv_0")
        x = nn.relu(BatchNorm(name="bn_0")(x, train=train))
        x = _conv3(x, self.channels, 2, self.dtype, "conv_1")
        s0 = BatchNorm(name="bn_1")(x, train=train)
        x = _conv3(nn.relu(s0), self.channels, 2, self.dtype, "conv_2")
        return s0, BatchNorm(name="bn_2")(x, train=train)


def _conv3(
    x: Images, channels: int, stride: int, dtype: DTypeLike, name: str
) -> Images:
    conv = nn.Conv(
        channels,
        (3, 3),
        stride,
        padding=1,
        use_bias=False,
        dtype=dtype,
        kernel_init=torch_uniform(9 * x.shape[-1]),
        name=name,
    )
    return conv(x)
