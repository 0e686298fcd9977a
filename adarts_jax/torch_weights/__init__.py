"""Weights of the PyTorch originals and ours: explicit rules, both directions.

NumPy arrays in and out; torch itself is needed only to read or write ``.pt`` files.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from adarts_jax.architecture import ArchitectureParams
from adarts_jax.errors import UserError
from adarts_jax.networks.derived_network import DerivedNetwork, variable_shapes
from adarts_jax.networks.search_network import SearchNetwork
from adarts_jax.space import topology
from adarts_jax.space.stack import image_size as default_size
from adarts_jax.torch_weights.derived_rules import derived_rules
from adarts_jax.torch_weights.layouts import (
    export_state_dict,
    import_state_dict,
    plain_names,
)
from adarts_jax.torch_weights.search_rules import (
    edge_attentions,
    has_average_scores,
    search_rules,
)

_ARCHITECTURE = {
    "alphas_normal": "alpha_normal",
    "alphas_reduce": "alpha_reduce",
    "betas_normal": "beta_normal",
    "betas_reduce": "beta_reduce",
}


def search_variables(
    state_dict: Mapping[str, np.ndarray],
    network: SearchNetwork,
    *,
    image_size: tuple[int, int] | None = None,
) -> PyTree:
    """Map the state dict of a PyTorch search network to our variables.

    Args:
      state_dict: NumPy arrays by PyTorch name (``module.`` prefixes and
        ``num_batches_tracked`` are understood; architecture tensors are left out, see
        ``search_architecture``).
      network: the search network of the same size.
      image_size: height and width of the images, on which only the weights of
        Att-DARTS depend; None for those of the stem's data set.

    Returns:
      ``{"params": ..., "batch_stats": ...}`` of NumPy arrays.

    Raises:
      UserError: entries are missing, unexpected or of another shape, or the network
        ranks channels by an average that the originals do not have.
    """
    if has_average_scores(network):
        raise UserError(
            "PyTorch weights have no average channel scores; build the network without "
            "channel_scores = average"
        )
    weights = {k: v for k, v in state_dict.items() if k not in _ARCHITECTURE}
    first = search_rules(network)[0].key
    stem = [v for k, v in weights.items() if k.removeprefix("module.") == first]
    channels = np.shape(stem[0])[1] if stem else 3
    size = default_size(network.stem, image_size)
    template = _shapes(network, (*size, channels))
    return import_state_dict(weights, search_rules(network), template)


def search_state_dict(
    variables: PyTree, network: SearchNetwork
) -> dict[str, np.ndarray]:
    """Map our variables (or gradients, ``{"params": ...}``) to PyTorch's names."""
    return export_state_dict(variables, search_rules(network))


def derived_variables(
    state_dict: Mapping[str, np.ndarray],
    network: DerivedNetwork,
    *,
    image_size: tuple[int, int] | None = None,
) -> PyTree:
    """Map the state dict of a PyTorch derived network to our variables.

    Args:
      state_dict: NumPy arrays by PyTorch name (``module.`` prefixes and
        ``num_batches_tracked`` are understood).
      network: the derived network of the same size, with an auxiliary head if the
        state dict has one.
      image_size: height and width of the images; None for the usual. Only the
        attention GE has weights that depend on it.

    Returns:
      ``{"params": ..., "batch_stats": ...}`` of NumPy arrays.

    Raises:
      UserError: entries are missing, unexpected or of another shape.
    """
    arrays = plain_names(state_dict)
    if network.num_cells > len(arrays):  # before much is built for nothing
        raise UserError(
            f"the state dict has {len(arrays)} entries, too few for num_cells="
            f"{network.num_cells}; use the number of cells it was made with"
        )
    rules = derived_rules(network)
    stem = arrays.get(rules[0].key)
    channels = 3 if stem is None or stem.ndim != 4 else stem.shape[1]
    size = default_size(network.stem, image_size)
    shape = (*size, channels)
    template = _derived_shapes(network, shape)  # pyright: ignore[reportArgumentType]
    return import_state_dict(arrays, rules, template)


def derived_state_dict(
    variables: PyTree, network: DerivedNetwork
) -> dict[str, np.ndarray]:
    """Map our variables (or gradients, ``{"params": ...}``) to PyTorch's names."""
    return export_state_dict(variables, derived_rules(network))


def search_architecture(tensors: Mapping[str, np.ndarray]) -> ArchitectureParams:
    """Map ``alphas_normal``, ``alphas_reduce`` (and betas) to our parameters.

    Betas of two dimensions are the attention logits of Att-DARTS.

    Raises:
      UserError: an alpha is missing.
    """
    found = {
        ours: jnp.asarray(tensors[theirs])
        for theirs, ours in _ARCHITECTURE.items()
        if theirs in tensors
    }
    for cell_type in topology.CELL_TYPES:
        if jnp.ndim(found.get(f"beta_{cell_type}", 0)) == 2:
            found[f"attention_{cell_type}"] = found.pop(f"beta_{cell_type}")
    for required in ("alpha_normal", "alpha_reduce"):
        if required not in found:
            raise UserError(
                f"no '{required.replace('alpha', 'alphas')}' among the tensors"
                f" ({', '.join(tensors) or 'none'}); give both alphas"
            )
    return ArchitectureParams(**found)


@functools.lru_cache(maxsize=8)
def _derived_shapes(
    network: DerivedNetwork, image_shape: tuple[int, int, int]
) -> PyTree:
    return variable_shapes(network, image_shape)


def _shapes(network: SearchNetwork, image_shape: tuple[int, int, int]) -> PyTree:
    edges = topology.num_edges(network.num_nodes)
    ops, attentions = len(network.primitives), len(edge_attentions(network))
    zeros = [jnp.zeros((edges, ops))] * 2 + [jnp.zeros(edges)] * 2
    zeros += [jnp.zeros((edges, attentions))] * 2
    arch = ArchitectureParams(*zeros)
    images = jnp.zeros((2, *image_shape))
    return jax.eval_shape(
        lambda key: network.init(key, arch, images, train=False), jax.random.key(0)
    )
