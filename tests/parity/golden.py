"""Golden fixtures of the originals: read, compare, account for every array.

A fixture remembers which of its arrays were read. What a test file does not read it
must excuse in a table, so that no array goes unnoticed.
"""

import functools
import gzip
import json
import math
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import adarts_jax as aj
from adarts_jax.networks.search_network import SearchNetwork
from benchmarks.torch_reference import recipe_weights

ARCHITECTURE = {
    "alphas_normal": "alpha_normal",
    "alphas_reduce": "alpha_reduce",
    "betas_normal": "beta_normal",
    "betas_reduce": "beta_reduce",
}
METHOD_NAMES = {
    "alpha-ADARTS": "alpha_adarts",
    "PC-DARTS": "pc_darts",
    "DARTS": "darts",
    "ADARTS": "adarts",
    "Att-DARTS": "att_darts_s",
}

# Bounds of the project, relative; a suggested tolerance may be tighter, never wider.
LARGEST_RELATIVE_ERROR = 1e-4
LARGEST_RELATIVE_GRADIENT_ERROR = 1e-3


class Golden:
    """Arrays and index entry of one fixture."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.entry = read_index(folder)[name]
        self._arrays = np.load(folder / f"{name}.npz")
        self._read: set[str] = set()
        specs = read_specs(folder)
        stored = specs.get(name) or self.entry.get("state_dict_spec")
        if stored is None:  # then gradients and statistics are stored whole
            whole = self.family("grad") | self.family("after")
            stored = {key: tensor.shape for key, tensor in whole.items()}
            self._read.clear()
        self.spec: Mapping[str, Any] = stored

    def __contains__(self, key: str) -> bool:
        return key in self._arrays.files

    def __getitem__(self, key: str) -> np.ndarray:
        self._read.add(key)
        return self._arrays[key]

    def keys(self, prefix: str = "") -> list[str]:
        """Return the names of the arrays that start with ``prefix``."""
        return [key for key in self._arrays.files if key.startswith(prefix)]

    def family(self, name: str) -> dict[str, np.ndarray]:
        """Unpack a packed family: state-dict key -> array, or three projections."""
        if f"pack/{name}/keys" not in self:
            return {}
        keys = [key.decode() for key in self[f"pack/{name}/keys"]]
        data = self[f"pack/{name}/data"]
        if data.ndim == 2:
            return dict(zip(keys, data, strict=True))
        shapes = [
            tuple(int(side) for side in text.decode().split(",")) if text else ()
            for text in self[f"pack/{name}/shapes"]
        ]
        parts = np.split(data, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
        return {
            key: part.reshape(shape)
            for key, part, shape in zip(keys, parts, shapes, strict=True)
        }

    def assert_all_read(self, excused: Mapping[str, str] | None = None) -> None:
        """Every array was read or is excused (pattern -> reason), none is both."""
        excused = excused or {}
        unread = set(self.keys()) - self._read
        for pattern in excused:
            hits = {key for key in self.keys() if fnmatch(key, pattern)}
            assert hits, f"{self.name} has nothing like {pattern}"
            assert hits <= unread, f"{self.name}: {pattern} is excused but was checked"
            unread -= hits
        assert not unread, f"{self.name}: nothing checks {sorted(unread)}"


@functools.cache
def read_index(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the index entries by fixture name."""
    return {
        entry["name"]: entry
        for entry in json.loads((folder / "index.json").read_text("utf-8"))
    }


@functools.cache
def read_specs(folder: Path) -> dict[str, dict[str, list[int]]]:
    """Return shapes by state-dict key, by fixture name."""
    packed = (folder / "state_dict_specs.json.gz").read_bytes()
    return json.loads(gzip.decompress(packed))


@functools.cache
def open_golden(shared: Path, name: str) -> Golden:
    """Return a fixture, the same object for every test."""
    return Golden(shared / "golden", name)


def make_network(golden: Golden) -> SearchNetwork:
    """Build our search network of a fixture's size."""
    entry, size = golden.entry, golden.entry["ctor"]
    method = METHOD_NAMES[entry["method"]]
    if _has_names_of_att_darts(golden):
        method = "darts"
    imagenet = "imagenet" in entry["upstream_class"]
    divisors = entry["k_list"][: size["layers"]] if "k_list" in entry else None
    network = aj.search_network(
        method,
        init_channels=size["C"],
        num_cells=size["layers"],
        num_classes=size["num_classes"],
        channel_divisor=2 if imagenet else divisors,
        stem="imagenet" if imagenet else "cifar",
    )
    assert isinstance(network, SearchNetwork)
    return network


@functools.cache
def initial_variables(golden: Golden) -> Any:
    """Rebuild the weights before the recorded passes (recipe of the README)."""
    state = recipe_weights.recipe_state(
        golden.entry["seed"],
        golden.spec,
        attention_shift="attention-shift" in golden.entry["init"],
    )
    if _has_names_of_att_darts(golden):
        state = {re.sub(*_NAME_OF_DARTS, key): tensor for key, tensor in state.items()}
    return aj.torch_weights.search_variables(state, make_network(golden))


def named(golden: Golden, variables: Any) -> dict[str, np.ndarray]:
    """Return our variables, or gradients, under the names of the fixture."""
    found = aj.torch_weights.search_state_dict(variables, make_network(golden))
    if _has_names_of_att_darts(golden):
        return {re.sub(*_NAME_OF_ATT_DARTS, key): array for key, array in found.items()}
    return found


# Without attention Att-DARTS is DARTS, but for the names of its operations.
_NAME_OF_DARTS = (r"layers\.(\d+)\.first_layers", r"_ops.\1._ops")
_NAME_OF_ATT_DARTS = (r"_ops\.(\d+)\._ops", r"layers.\1.first_layers")


def _has_names_of_att_darts(golden: Golden) -> bool:
    return golden.entry.get("location") == "no_attention"


def architecture(golden: Golden, prefix: str) -> aj.ArchitectureParams:
    """Return the architecture parameters stored under ``prefix``."""
    return aj.torch_weights.search_architecture(
        {
            name: golden[f"{prefix}/{name}"]
            for name in ARCHITECTURE
            if f"{prefix}/{name}" in golden
        }
    )


def tensor_of(arch: aj.ArchitectureParams, name: str) -> Any:
    """Return the tensor that the originals call so; Att-DARTS' betas attend."""
    found = getattr(arch, ARCHITECTURE[name])
    if found is None and name.startswith("betas"):
        found = arch.attention("reduce" if name.endswith("reduce") else "normal")
    return found


def to_nhwc(images: np.ndarray) -> Any:
    """Bring images, or a series of batches of them, into our layout."""
    return jnp.asarray(np.moveaxis(images, -3, -1))


def assert_close(
    golden: Golden, family: str, got: Any, want: np.ndarray, key: str = ""
) -> None:
    """Compare one array within the fixture's tolerance for its family."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{golden.name}, {family} {key}"
    relative, absolute, per_array = _tolerance(golden, family)
    scale = np.abs(want).max(initial=0) if per_array else np.abs(want)
    worst = (np.abs(got - want) - relative * scale - absolute).max(initial=-np.inf)
    assert worst <= 0, f"{golden.name}, {family} {key}: {worst} beyond the tolerance"


def assert_projections_close(
    golden: Golden, family: str, got: Any, want: np.ndarray, key: str
) -> None:
    """Compare an array with its stored sum, norm and random projection.

    An error of e per element moves a projection by about ``sqrt(size) * e``.
    """
    got = np.asarray(got)
    relative, absolute, _ = _tolerance(golden, family)
    limit = 3 * (relative * want[1] + absolute * np.sqrt(got.size))
    worst = np.abs(recipe_weights.projections(0, key, got) - want).max()
    assert worst <= limit, f"{golden.name}, {family} {key}: {worst} > {limit}"


def assert_family_close(
    golden: Golden, family: str, got: Mapping[str, Any], *, projected: str
) -> None:
    """Compare named tensors with what is stored of them: whole, projected or both."""
    whole, projections = golden.family(family), golden.family(projected)
    assert whole.keys() | projections.keys() == got.keys()
    for key, want in whole.items():
        assert_close(golden, family, got[key], want, key)
    for key, want in projections.items():
        assert_projections_close(golden, family, got[key], want, key)


def _tolerance(golden: Golden, family: str) -> tuple[float, float, bool]:
    """Return relative and absolute tolerance, and whether they hold per array."""
    suggested = golden.entry["suggested_tolerance"][family]
    per_array = "rule" in suggested
    relative, absolute = suggested.values() if not per_array else _rule(suggested)
    if golden.entry["group"] == "C":  # trajectories: as the fixture suggests
        return relative, absolute, per_array
    bound = LARGEST_RELATIVE_GRADIENT_ERROR if per_array else LARGEST_RELATIVE_ERROR
    return min(relative, bound), absolute, per_array


def _rule(suggested: Mapping[str, Any]) -> Iterable[float]:
    return suggested["rel"], suggested["abs"]
