"""Which depthwise convolutions and pools the networks ask for: traced, not listed."""

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal
from unittest import mock

Kind = Literal["depthwise", "max_pool", "avg_pool"]


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of ``nn.depthwise`` or ``nn.pooling``.

    Attributes:
      kind: which function.
      shape: of the images: operation, batch, height, width, channel.
      sizes: window of each operation of the stack.
      stride: 1 or 2.
      dilation: 1 for pools.
    """

    kind: Kind
    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    stride: int
    dilation: int = 1

    def __str__(self) -> str:
        """Name the call in one word per property."""
        windows = "+".join(map(str, self.sizes))
        images = "x".join(map(str, self.shape))
        return f"{self.kind} {images} k{windows} s{self.stride} d{self.dilation}"

    @property
    def products(self) -> float:
        """Multiply-adds, or comparisons, of one forward pass."""
        positions = math.prod(self.shape[1:]) / self.stride**2
        return positions * sum(size**2 for size in self.sizes)


def search_calls(
    init_channels: int,
    num_cells: int,
    batch: int,
    image: tuple[int, int, int] = (32, 32, 3),
) -> Counter[Call]:
    """Count the calls of a forward pass of the alpha-ADARTS search network."""
    import jax
    import jax.numpy as jnp

    import adarts_jax

    network = adarts_jax.search_network(
        "alpha_adarts", init_channels=init_channels, num_cells=num_cells
    )
    key = jax.random.key(0)
    arch = adarts_jax.init_architecture("alpha_adarts", key)
    images = jnp.zeros((batch, *image))
    with _recorded() as calls:
        jax.eval_shape(lambda key: network.init(key, arch, images, train=True), key)
    return calls


def derived_calls(init_channels: int, num_cells: int, batch: int) -> Counter[Call]:
    """Count the calls of a forward pass of the derived network of alpha-ADARTS."""
    import jax
    import jax.numpy as jnp

    from adarts_jax.networks.derived_network import derived_network
    from adarts_jax.space.published import PUBLISHED

    network = derived_network(
        PUBLISHED["alpha_adarts"],
        image_size=(32, 32),
        init_channels=init_channels,
        num_cells=num_cells,
        num_classes=10,
    )
    images = jnp.zeros((batch, 32, 32, 3))
    with _recorded() as calls:
        jax.eval_shape(
            lambda key: network.init(key, images, train=True), jax.random.key(0)
        )
    return calls


NETWORKS: Mapping[str, Callable[[], Counter[Call]]] = MappingProxyType(
    {
        # only to see whether the benchmark runs
        "tiny": lambda: search_calls(4, 3, 2),
        "search_digits": lambda: search_calls(8, 3, 32, (8, 8, 1)),
        "search_small": lambda: search_calls(8, 4, 32),
        "search_full": lambda: search_calls(16, 8, 64),
        "derived": lambda: derived_calls(36, 20, 96),
    }
)


@contextlib.contextmanager
def _recorded() -> Iterator[Counter[Call]]:
    """Count calls where the layers look the functions up."""
    from adarts_jax.nn import layers, pooling

    calls: Counter[Call] = Counter()
    convolve, pools = layers.depthwise_conv, (pooling.max_pool, pooling.avg_pool)

    def count_convolution(
        x: Any, kernels: Any, *, stride: int = 1, dilation: int = 1
    ) -> Any:
        sizes = tuple(kernel.shape[0] for kernel in kernels)
        calls[Call("depthwise", x.shape, sizes, stride, dilation)] += 1
        return convolve(x, kernels, stride=stride, dilation=dilation)

    def count_pool(kind: Kind, pool: Callable[..., Any]) -> Callable[..., Any]:
        def counted(x: Any, *, sizes: tuple[int, ...], stride: int) -> Any:
            calls[Call(kind, x.shape, sizes, stride)] += 1
            return pool(x, sizes=sizes, stride=stride)

        return counted

    with (
        mock.patch.object(layers, "depthwise_conv", count_convolution),
        mock.patch.object(pooling, "max_pool", count_pool("max_pool", pools[0])),
        mock.patch.object(pooling, "avg_pool", count_pool("avg_pool", pools[1])),
    ):
        yield calls


def heaviest(calls: Counter[Call], kind: Kind, most: int) -> list[tuple[Call, int]]:
    """Return the calls of a kind that cost most together, with how often they occur."""
    found = [(call, uses) for call, uses in calls.items() if call.kind == kind]
    return sorted(found, key=lambda item: -item[0].products * item[1])[:most]
