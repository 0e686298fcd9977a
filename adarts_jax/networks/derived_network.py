"""The network built from a genotype: what is retrained, evaluated and shared.

Equal cells do not share a loop (``nn.scan``): four of them would compile twice as fast
but, on CPU, run their gradient seventeen times slower (``benchmarks/equal_cells.py``).
"""

import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from numpy.typing import DTypeLike

from adarts_jax.networks import derived_checks
from adarts_jax.networks.auxiliary import AuxiliaryHead, Classifier
from adarts_jax.networks.derived_cell import DerivedCell
from adarts_jax.networks.stem import CifarStem, ImageNetStem, choose_stem
from adarts_jax.nn.drop_path import draw_path_scales
from adarts_jax.nn.initial_weights import draw_together
from adarts_jax.space import topology
from adarts_jax.space.cost import DERIVED_STEM_MULTIPLIER
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.stack import CellPlace, Stem, image_size, place_cells

Images = Float[Array, "batch height width channel"]
Logits = Float[Array, "batch class"]
Rate = float | Float[Array, ""]

_RematCell = nn.remat(DerivedCell)

# Resolution at which the first cell receives its second input, as divisor.
STEM_STRIDE: Mapping[Stem, int] = {"cifar": 1, "imagenet": 8}


class DerivedNetwork(nn.Module):
    """Stem, cells of a genotype, linear classifier; an auxiliary head while training.

    ``logits, aux = network.apply(variables, images, train=False)``; to train, add
    ``mutable=["batch_stats"]`` and, with drop path, ``rngs={"drop_path": key}``.

    Attributes:
      genotype: both cells.
      init_channels: width of the first cell; doubles at each reduction cell.
      num_cells: cells in all; reduction cells at one and two thirds.
      num_classes: outputs.
      stem: "cifar" keeps the resolution, "imagenet" starts at an eighth of it.
      auxiliary: whether there is a second head after cell ``2 * num_cells // 3``.
      dtype: type of the arithmetic and of the maps between layers. Parameters and
        statistics, batch norm's arithmetic and the logits are float32 in any case.
      bottlenecks: attention after the concatenation of normal and of reduction cells,
        "" for none; no published genotype has any.
      remat: keep only the inputs of cells for the backward pass and compute the rest
        again: a thirteenth of the memory at full size (710 MiB instead of 9,092 for 96
        images, float32), about a third more work. XLA does not follow it on CPU.

    Collections: ``params``, ``batch_stats``. Random stream: ``drop_path``.
    """

    genotype: Genotype
    init_channels: int = 36
    num_cells: int = 20
    num_classes: int = 10
    stem: Stem = "cifar"
    auxiliary: bool = False
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    bottlenecks: tuple[str, str] = ("", "")

    def __call__(
        self, images: Images, *, train: bool, drop_path_rate: Rate = 0.0
    ) -> tuple[Logits, Logits | None]:
        """Return logits, and those of the auxiliary head (None if it did not run).

        Args:
          images: normalised images, NHWC, of any size that halves evenly.
          train: batch statistics (recorded) instead of running ones; drop path and the
            auxiliary head work only here.
          drop_path_rate: probability of dropping a branch, in [0, 1); may be traced.

        Raises:
          UserError: network and images do not fit (see ``check_images``).
        """
        _, logits, auxiliary = self._forward(
            images, train=train, drop_path_rate=drop_path_rate
        )
        return logits, auxiliary

    def features(
        self, images: Images, *, train: bool = False, drop_path_rate: Rate = 0.0
    ) -> Mapping[int, Images]:
        """Return the last map of every resolution, by stride: a backbone's outputs.

        Call as ``network.apply(variables, images, method="features")``. The strides
        (pixels of the image per pixel of the map) are 1, 2, 4 with the CIFAR stem and
        4, 8, 16, 32 with the ImageNet stem.

        Args:
          images: as in a call.
          train: as in a call.
          drop_path_rate: as in a call.
        """
        maps, _, _ = self._forward(images, train=train, drop_path_rate=drop_path_rate)
        return maps

    @nn.compact
    def _forward(
        self, images: Images, *, train: bool, drop_path_rate: Rate
    ) -> tuple[dict[int, Images], Logits, Logits | None]:
        use_auxiliary = self.auxiliary and (train or self.is_initializing())
        batch, height, width, _ = images.shape
        check_images(self, (height, width), auxiliary=use_auxiliary)
        scales = [None] * self.num_cells
        if train and derived_checks.may_drop(drop_path_rate):
            scales = self._draw_scales(batch, drop_path_rate)
        s0, s1 = self._stem(images, train=train)
        stride = STEM_STRIDE[self.stem]
        maps = {stride: s1}
        if self.stem == "imagenet":
            maps = {stride // 2: s0, stride: s1}
        auxiliary = None
        for index, place in enumerate(place_all(self)):
            cell = self._cell(index, place, train=train)
            s0, s1 = s1, cell(s0, s1, scales[index])
            stride *= place.stride
            maps[stride] = s1
            if use_auxiliary and index == auxiliary_cell(self):
                head = AuxiliaryHead(
                    self.num_classes, self.stem, self.dtype, name="auxiliary"
                )
                auxiliary = head(s1, train=train)
        return maps, Classifier(self.num_classes, name="classifier")(s1), auxiliary

    def _stem(self, images: Images, *, train: bool) -> tuple[Images, Images]:
        channels = DERIVED_STEM_MULTIPLIER[self.stem] * self.init_channels
        layout = CifarStem if self.stem == "cifar" else ImageNetStem
        return layout(channels, self.dtype, name="stem")(images, train=train)

    def _cell(self, index: int, place: CellPlace, *, train: bool) -> DerivedCell:
        return (_RematCell if self.remat else DerivedCell)(
            self.genotype.entries(place.cell_type),
            self.genotype.concat(place.cell_type),
            place.channels,
            place.cell_type == "reduce",
            place.after_reduction,
            train,
            bottleneck_of(self, place) or None,
            name=f"cell_{index}",
        )

    def _draw_scales(self, batch: int, rate: Rate) -> Float[Array, "cell edge batch"]:
        edges = max(len(self.genotype.entries(name)) for name in topology.CELL_TYPES)
        shape = (self.num_cells, edges, batch)
        return draw_path_scales(self.make_rng("drop_path"), rate, shape)


def derived_network(
    genotype: Genotype,
    *,
    image_size: tuple[int, int],
    init_channels: int = 36,
    num_cells: int = 20,
    num_classes: int = 10,
    stem: Stem | Literal["auto"] = "auto",
    auxiliary: bool = False,
    dtype: DTypeLike = jnp.float32,
    remat: bool = False,
) -> DerivedNetwork:
    """Build a derived network for images of a known size, and check that it fits them.

    Args:
      genotype: both cells.
      image_size: height and width of the images, in pixels.
      init_channels: width of the first cell.
      num_cells: cells in all.
      num_classes: outputs.
      stem: "auto" chooses by the image size (see ``choose_stem``).
      auxiliary: whether to add the auxiliary head.
      dtype: type of the arithmetic.
      remat: trade work for memory.

    Raises:
      UserError: a number is out of range, or network and images do not fit.
    """
    network = DerivedNetwork(
        genotype,
        init_channels,
        num_cells,
        num_classes,
        choose_stem(stem, image_size),
        auxiliary,
        dtype,
        remat,
    )
    check_images(network, image_size, auxiliary=auxiliary)
    return network


def init_variables(
    network: DerivedNetwork, key: PRNGKeyArray, image_shape: tuple[int, int, int]
) -> PyTree:
    """Draw ``{"params": ..., "batch_stats": ...}``, auxiliary head included.

    Args:
      network: the network.
      key: randomness.
      image_shape: height, width, channels.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return draw_together(lambda key: network.lazy_init(key, images, train=True), key)


def variable_shapes(
    network: DerivedNetwork, image_shape: tuple[int, int, int]
) -> PyTree:
    """Return shapes and types of the variables; computes and compiles nothing.

    Args:
      network: the network.
      image_shape: height, width, channels.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    initialize = functools.partial(network.init, train=True)
    return jax.eval_shape(initialize, jax.random.key(0), images)


def place_all(network: DerivedNetwork) -> list[CellPlace]:
    """Return what every cell of the network finds in front of it."""
    return place_cells(
        num_cells=network.num_cells,
        init_channels=network.init_channels,
        stem=network.stem,
        stem_channels=DERIVED_STEM_MULTIPLIER[network.stem] * network.init_channels,
        concat={
            name: len(network.genotype.concat(name)) for name in topology.CELL_TYPES
        },
        size=image_size(network.stem, None),
    )


def bottleneck_of(network: DerivedNetwork, place: CellPlace) -> str:
    """Return the attention after the concatenation of a cell, "" for none."""
    return network.bottlenecks[place.cell_type == "reduce"]


def auxiliary_cell(network: DerivedNetwork) -> int:
    """Return the index of the cell that the auxiliary head looks at."""
    return 2 * network.num_cells // 3


def check_images(
    network: DerivedNetwork, size: tuple[int, int], *, auxiliary: bool
) -> None:
    """Check that a network can be built and can take images of a size.

    Args:
      network: the network.
      size: height and width in pixels.
      auxiliary: whether the auxiliary head will run.

    Raises:
      UserError: a number is out of range, the images cannot be halved often enough,
        or the map under the auxiliary head is too small.
    """
    derived_checks.check_size(
        init_channels=network.init_channels,
        num_cells=network.num_cells,
        num_classes=network.num_classes,
        stem=network.stem,
    )
    strides, stride = [], STEM_STRIDE[network.stem]
    for place in place_all(network):
        stride *= place.stride
        strides.append(stride)
    derived_checks.check_resolution(size, strides[-1])
    if auxiliary:
        cell = auxiliary_cell(network)
        derived_checks.check_auxiliary(size, strides[cell], cell, network.stem)
