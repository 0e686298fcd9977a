"""How one PyTorch tensor lies in a region of one of our arrays, both ways.

A rule names both ends explicitly; nothing is guessed from names or shapes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import PyTree

from adarts_jax.errors import UserError, shorten

# torch -> ours: the permutation of the torch tensor's axes, after singleton axes
# named in `squeeze` are dropped.
Layout = Literal["same", "conv", "depthwise", "pointwise", "linear"]
_PERMUTE: Mapping[Layout, tuple[int, ...]] = {
    "conv": (2, 3, 1, 0),  # O I h w -> h w I O
    "depthwise": (1, 2, 0),  # C (1) h w -> h w C
    "pointwise": (1, 0),  # O I (1 1) -> I O
    "linear": (1, 0),  # O I -> I O
}
_SQUEEZE: Mapping[Layout, tuple[int, ...]] = {"depthwise": (1,), "pointwise": (2, 3)}

Index = tuple[int | slice, ...]

# What wrappers of PyTorch put in front of every name.
_PREFIXES = ("module.", "_orig_mod.")

Row = tuple[str, str, str, str]
_SHOWN = 3  # entries of each kind that a message has room for


class StateDictMismatchError(UserError):
    """A state dict is not that of the network.

    Attributes:
      table: one row per entry that is amiss: missing, unexpected or of another shape;
        its name; the shape it has; the shape it should have ("" for none).
    """

    def __init__(
        self,
        table: Sequence[Row],
        *,
        reason: str = "the state dict does not fit the network",
        way_out: str = "check width, depth, classes and channel_divisor of the network",
    ):
        super().__init__(f"{reason}; {_summary(table)}; {way_out}")
        self.table = tuple(table)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor of a state dict and where it lies in our variables.

    Attributes:
      key: name in the state dict.
      path: collection and names down to the array in our variables.
      layout: how axes correspond.
      index: region of the array; empty for all of it.
    """

    key: str
    path: tuple[str, ...]
    layout: Layout = "same"
    index: Index = ()

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """Bring a torch tensor into the axis order of the region."""
        if self.layout in _SQUEEZE:
            tensor = tensor.squeeze(_SQUEEZE[self.layout])
        permutation = _PERMUTE.get(self.layout)
        return tensor if permutation is None else tensor.transpose(permutation)

    def to_torch(self, region: np.ndarray) -> np.ndarray:
        """Bring a region of ours into the axis order of the torch tensor."""
        permutation = _PERMUTE.get(self.layout)
        if permutation is not None:
            region = region.transpose(np.argsort(permutation))
        if self.layout in _SQUEEZE:
            region = np.expand_dims(region, _SQUEEZE[self.layout])
        return region

    def shape(self, arrays: Mapping[tuple[str, ...], np.ndarray]) -> tuple[int, ...]:
        """Return the shape that the torch tensor must have."""
        return self.to_torch(arrays[self.path][self.index]).shape


def import_state_dict(
    state_dict: Mapping[str, np.ndarray], rules: Sequence[Rule], template: PyTree
) -> PyTree:
    """Fill variables of the template's shapes from a state dict.

    Args:
      state_dict: NumPy arrays by PyTorch name; a common ``module.`` prefix is dropped
        and ``num_batches_tracked`` ignored.
      rules: one per tensor; together they cover every element of the template.
      template: variables (or their shapes) of the network.

    Raises:
      UserError: entries are missing, unexpected or of another shape (all named).
    """
    given, leaves = plain_names(state_dict), _leaves(template)
    # Views of one number: whatever size the template claims, nothing is reserved yet.
    _check(
        given,
        rules,
        {p: np.broadcast_to(np.zeros((), x.dtype), x.shape) for p, x in leaves.items()},
    )
    arrays = {p: np.full(x.shape, np.nan, x.dtype) for p, x in leaves.items()}
    for rule in rules:
        arrays[rule.path][rule.index] = rule.to_ours(np.asarray(given[rule.key]))
    return _unflatten(arrays)


def export_state_dict(
    variables: PyTree, rules: Sequence[Rule]
) -> dict[str, np.ndarray]:
    """Return the tensors of the rules by PyTorch name; the inverse of the import.

    Rules whose array is not in ``variables`` are left out, so that gradients (params
    alone) can be named too.
    """
    arrays = _leaves(variables)
    return {
        rule.key: np.ascontiguousarray(
            rule.to_torch(np.asarray(arrays[rule.path])[rule.index])
        )
        for rule in rules
        if rule.path in arrays
    }


def plain_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leave out ``num_batches_tracked`` and a prefix that every name has."""
    found = {
        key: np.asarray(value)
        for key, value in state_dict.items()
        if not key.endswith("num_batches_tracked")
    }
    for prefix in _PREFIXES:
        if found and all(key.startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): v for key, v in found.items()}
    return found


def _check(
    given: Mapping[str, np.ndarray],
    rules: Sequence[Rule],
    arrays: Mapping[tuple[str, ...], np.ndarray],
) -> None:
    expected = {rule.key: rule.shape(arrays) for rule in rules}
    table = [("missing", k, "", str(s)) for k, s in expected.items() if k not in given]
    table += [
        ("unexpected", key, str(array.shape), "")
        for key, array in given.items()
        if key not in expected
    ]
    table += [
        ("of another shape", key, str(given[key].shape), str(shape))
        for key, shape in expected.items()
        if key in given and given[key].shape != shape
    ]
    if table:
        raise StateDictMismatchError(table)


def _summary(table: Sequence[Row]) -> str:
    """Count the entries of each kind and show the first three."""
    parts = []
    for kind in dict.fromkeys(row[0] for row in table):
        rows = [row[1:] for row in table if row[0] == kind]
        shown = [
            f"{shorten(key)} {found} instead of {wanted}"
            if found and wanted
            else shorten(key)
            for key, found, wanted in rows[:_SHOWN]
        ]
        more = ", ..." if rows[_SHOWN:] else ""
        parts.append(f"{len(rows)} {kind}: {', '.join(shown)}{more}")
    return "; ".join(parts)


def _leaves(tree: PyTree, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], PyTree]:
    if not isinstance(tree, Mapping):
        return {path: tree}
    found: dict[tuple[str, ...], PyTree] = {}
    for name, child in tree.items():
        found |= _leaves(child, (*path, name))
    return found


def _unflatten(arrays: Mapping[tuple[str, ...], np.ndarray]) -> dict:
    tree: dict = {}
    for path, array in arrays.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = array
    return tree
