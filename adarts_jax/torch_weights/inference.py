"""What the names and shapes of a state dict tell about the network it belongs to.

Names of entries and sizes of arrays only. Pools and plain skips have no weights, and
no array says where an operation starts: a genotype can be confirmed, not derived.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from adarts_jax.errors import UserError, shorten
from adarts_jax.networks.derived_network import DerivedNetwork, place_all
from adarts_jax.space import topology
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.stack import Stem
from adarts_jax.torch_weights.derived_rules import derived_rules
from adarts_jax.torch_weights.layouts import plain_names

StateDict = Mapping[str, np.ndarray]

_CELL = re.compile(r"cells\.(\d+)\.")
# A mixed operation has candidates inside of every edge.
_MIXED = re.compile(r"cells\.\d+\._\w+\.\d+\._ops\.")
_STEMS: Mapping[str, Stem] = {"stem.0.weight": "cifar", "stem0.0.weight": "imagenet"}
_CIFAR_STEM_MULTIPLIER = 3
_AUXILIARY = "auxiliary_head."


@dataclasses.dataclass(frozen=True)
class NetworkSize:
    """A derived network apart from its genotype.

    Attributes:
      stem: "cifar" or "imagenet".
      init_channels: width of the first cell.
      num_cells: cells in all.
      num_classes: outputs.
      auxiliary: whether the state dict has the auxiliary head.
      image_channels: channels of the images.
    """

    stem: Stem
    init_channels: int
    num_cells: int
    num_classes: int
    auxiliary: bool
    image_channels: int

    def make_network(self, genotype: Genotype) -> DerivedNetwork:
        """Build the network of this size from a genotype."""
        return DerivedNetwork(
            genotype,
            self.init_channels,
            self.num_cells,
            self.num_classes,
            self.stem,
            self.auxiliary,
        )


def infer_size(state_dict: StateDict) -> NetworkSize:
    """Read the size of a derived network off its state dict.

    Args:
      state_dict: arrays by PyTorch name, see ``derived_variables``.

    Raises:
      UserError: it is not that of a derived network; says what it is, if known.
    """
    arrays = plain_names(state_dict)
    _check_family(arrays)
    key = next(key for key in _STEMS if key in arrays)
    stem = _STEMS[key]
    width, image_channels, *_ = _shape(arrays, key, 4)
    if stem == "cifar" and width % _CIFAR_STEM_MULTIPLIER:
        raise UserError(
            f"{key} has {width} channels, but the CIFAR stem has three times the width"
            " of the first cell"
        )
    doubled = width // _CIFAR_STEM_MULTIPLIER if stem == "cifar" else 2 * width
    cells = {int(match[1]) for name in arrays if (match := _CELL.match(name))}
    if not cells or max(cells) >= len(arrays):
        raise UserError("the state dict has no cells (cells.0.preprocess0... )")
    return NetworkSize(
        stem=stem,
        init_channels=doubled,
        num_cells=max(cells) + 1,
        num_classes=_shape(arrays, "classifier.weight", 2)[0],
        auxiliary=any(name.startswith(_AUXILIARY) for name in arrays),
        image_channels=image_channels,
    )


def fitting_genotypes(
    state_dict: StateDict, size: NetworkSize, known: Mapping[str, Genotype]
) -> list[str]:
    """Return the names of the genotypes whose networks have just these entries.

    Args:
      state_dict: arrays by PyTorch name.
      size: as inferred.
      known: genotypes by name.
    """
    arrays = plain_names(state_dict)
    return [name for name, genotype in known.items() if _fits(arrays, size, genotype)]


def revealed_operations(state_dict: StateDict, num_cells: int) -> str:
    """Say which operations have weights, cell by cell type, in the order of entries.

    Args:
      state_dict: arrays by PyTorch name.
      num_cells: cells in all.
    """
    arrays = plain_names(state_dict)
    reductions = topology.reduction_cells(num_cells)
    parts = []
    for kind, reduces in (("normal", False), ("reduction", True)):
        cells = [c for c in range(num_cells) if (c in reductions) == reduces]
        found = _operations(arrays, cells[0]) if cells else []
        parts.append(f"{kind} cell: {', '.join(found) or 'none'}")
    return "; ".join(parts)


def _check_family(arrays: StateDict) -> None:
    """Name the state dicts of other networks of the same projects."""
    if any(_MIXED.match(name) or name.startswith("alphas_") for name in arrays):
        raise UserError(
            "this is the state dict of a search network, not of a derived one; derive "
            "a genotype and retrain it (in Python, adarts_jax.torch_weights."
            "search_variables reads it)"
        )
    if any(name.startswith("rnns.") for name in arrays):
        raise UserError(
            "this is the state dict of a recurrent network; only convolutional "
            "networks can be converted"
        )
    if not any(key in arrays for key in _STEMS) or "classifier.weight" not in arrays:
        first = ", ".join(map(shorten, list(arrays)[:4]))
        raise UserError(
            f"these {len(arrays)} entries ({first}, ...) are not those of a derived "
            "network: there is no stem or no classifier"
        )


def _shape(arrays: StateDict, key: str, rank: int) -> Sequence[int]:
    shape = arrays[key].shape
    if len(shape) != rank or 0 in shape:
        raise UserError(f"{key} has shape {shape}, expected {rank} axes")
    return shape


def _fits(arrays: StateDict, size: NetworkSize, genotype: Genotype) -> bool:
    """Compare names, widths, and the windows that tell operations apart."""
    network = size.make_network(genotype)
    rules = derived_rules(network)
    if {rule.key for rule in rules} != arrays.keys():
        return False
    for index, place in enumerate(place_all(network)):
        inputs = arrays[f"cells.{index}.preprocess1.op.1.weight"].shape[:2]
        if inputs != (place.channels, place.channels_in[1]):
            return False
    # Operations have one kernel per window; the gather of an attention has any size.
    windows = {
        rule.key: rule.path[-1] for rule in rules if rule.path[-1].startswith("kernel_")
    }
    return all(
        window == "kernel_{}x{}".format(*arrays[key].shape[2:])
        for key, window in windows.items()
        if arrays[key].ndim == 4
    )


def _operations(arrays: StateDict, cell: int) -> list[str]:
    """Name the operations of a cell that have weights, each with its entry."""
    found: dict[int, dict[str, tuple[int, ...]]] = {}
    pattern = re.compile(rf"cells\.{cell}\._\w+\.(\d+)\.(.+)")
    for name, array in arrays.items():
        if match := pattern.match(name):
            found.setdefault(int(match[1]), {})[match[2]] = array.shape
    return [f"{index} {_name(parts)}" for index, parts in sorted(found.items())]


def _name(parts: Mapping[str, tuple[int, ...]]) -> str:
    """Name an operation by its layers."""
    if "op.1.weight" in parts:
        side = parts["op.1.weight"][-1]
        return f"{'sep' if 'op.5.weight' in parts else 'dil'}_conv_{side}x{side}"
    if "conv_1.weight" in parts:
        return "skip_connect"
    return "conv_7x1_1x7" if "1.weight" in parts else "another"
