"""The auxiliary classifier of a derived network, used while training only."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from adarts_jax.nn.batch_norm import BatchNorm
from adarts_jax.nn.initial_weights import torch_uniform
from adarts_jax.space.stack import Stem

Images = Float[Array, "batch height width channel"]

POOL_WINDOW = 5
POOL_STRIDE: dict[Stem, int] = {"cifar": 3, "imagenet": 2}
_CHANNELS = (128, 768)


def smallest_map(stem: Stem) -> int:
    """Return the side of the smallest map the head can use, in pixels.

    Its pooling must leave the 2 x 2 pixels of its second convolution.

    >>> smallest_map("cifar"), smallest_map("imagenet")
    (8, 7)
    """
    return POOL_WINDOW + POOL_STRIDE[stem]


class AuxiliaryHead(nn.Module):
    """ReLU, pooling, 1 x 1 and 2 x 2 convolution, linear classifier.

    The originals have one position left before the classifier (maps of 8 x 8 and
    7 x 7 pixels); of larger maps all positions are averaged.

    Attributes:
      num_classes: outputs.
      stem: layout of the network. With ``"imagenet"`` the pooling has stride 2 and the
        second convolution no batch norm, as in the originals.
      dtype: type of the convolutions' arithmetic.
    """

    num_classes: int
    stem: Stem = "cifar"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Float[Array, "batch class"]:
        """Return logits, float32."""
        stride = POOL_STRIDE[self.stem]
        x = nn.avg_pool(nn.relu(x), (POOL_WINDOW,) * 2, (stride, stride))
        for index, channels in enumerate(_CHANNELS):
            window = index + 1
            conv = nn.Conv(
                channels,
                (window, window),
                padding="VALID",
                use_bias=False,
                dtype=self.dtype,
                kernel_init=torch_uniform(window**2 * x.shape[-1]),
                name=f"conv_{index}",
            )
            x = conv(x)
            if index == 0 or self.stem == "cifar":
                x = BatchNorm(name=f"bn_{index}")(x, train=train)
            x = nn.relu(x)
        return Classifier(self.num_classes, name="classifier")(x)


class Classifier(nn.Module):
    """Global average and a linear layer, in float32 at least."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch class"]:
        """Return logits."""
        init = torch_uniform(x.shape[-1])
        dense = nn.Dense(
            self.num_classes, kernel_init=init, bias_init=init, name="linear"
        )
        return dense(x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32)))
