"""Attention-based differentiable architecture search in JAX/Flax: the public names."""

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flax import linen as _nn
from jaxtyping import PRNGKeyArray as _PRNGKeyArray

from adarts_jax import torch_weights as torch_weights
from adarts_jax.architecture import ArchitectureParams as ArchitectureParams
from adarts_jax.discretize import discretize as discretize
from adarts_jax.errors import UserError as UserError
from adarts_jax.methods import METHODS as METHODS
from adarts_jax.methods import find_method as find_method
from adarts_jax.space.genotype import Genotype as Genotype
from adarts_jax.space.published import PUBLISHED as published  # noqa: N811

if TYPE_CHECKING:
    from adarts_jax.engine.search_loop import SearchResult
    from adarts_jax.model_directory import Model

__all__ = [
    "METHODS",
    "ArchitectureParams",
    "Genotype",
    "UserError",
    "discretize",
    "find_method",
    "init_architecture",
    "load_model",
    "published",
    "search",
    "search_network",
    "torch_weights",
]


search: "Callable[..., SearchResult]"  # the program of this name, see below


def search_network(
    method: str,
    *,
    init_channels: int = 16,
    num_cells: int = 8,
    num_classes: int = 10,
    channel_divisor: int | Sequence[int] | None = None,
    **options: Any,
) -> _nn.Module:
    """Build the search network of a method; see ``Method.make_network``."""
    return find_method(method).make_network(
        init_channels=init_channels,
        num_cells=num_cells,
        num_classes=num_classes,
        channel_divisor=channel_divisor,
        **options,
    )


def init_architecture(
    method: str, key: _PRNGKeyArray, *, initialization: Any = None, **sizes: Any
) -> ArchitectureParams:
    """Draw a method's architecture parameters; see ``Method.init_architecture``."""
    return find_method(method).init_architecture(
        key, initialization=initialization, **sizes
    )


def load_model(directory: str, **options: Any) -> "Model":
    """Read a model directory; see ``adarts_jax.model_directory.load_model``."""
    from adarts_jax.model_directory import load_model as load

    return load(directory, **options)


def __getattr__(name: str) -> Any:
    """Import the search, which needs much more than the rest, on first use."""
    if name == "search":
        return importlib.import_module("adarts_jax.search")
    raise AttributeError(f"module 'adarts_jax' has no attribute '{name}'")
