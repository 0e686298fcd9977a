"""Model directories: what people share. ``model.json`` and ``weights.safetensors``.

The weights carry the names and layouts of the published PyTorch networks, so that a
file outlives how our modules are arranged, and PyTorch can read it too. No pickles.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PyTree
from numpy.typing import DTypeLike

from adarts_jax import torch_weights
from adarts_jax.errors import UserError, shorten
from adarts_jax.model_spec import FORMAT, MAX_TEXT, ModelSpec
from adarts_jax.networks.derived_network import DerivedNetwork

SPEC_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class Model:
    """A network with its weights.

    Attributes:
      network: to be called as ``network.apply(variables, images, train=False)``.
      variables: ``params`` and ``batch_stats``.
      spec: what the network is, and the images it expects.
    """

    network: DerivedNetwork
    variables: PyTree
    spec: ModelSpec


def save_model(
    directory: str | os.PathLike[str], spec: ModelSpec, variables: PyTree
) -> None:
    """Write a model directory, replacing the model that may be in it.

    Each of the two files is replaced in one move, the weights first. A crash between
    the moves leaves new weights beside the old ``model.json``: the same model where
    only its provenance changed, a clear error on loading where the network did.

    Args:
      directory: made if missing; other files in it are left alone.
      spec: what the network is.
      variables: ``params`` and ``batch_stats`` of ``spec.make_network()``; an
        auxiliary head that the spec does not have is an error.

    Raises:
      UserError: the variables are not those of the network, or the directory cannot
        be written.
    """
    directory = Path(directory)
    text = spec.to_json()
    tensors = _export(variables, spec)
    _check_channels(directory / WEIGHTS_FILE, variables, spec)
    metadata = {"format": FORMAT}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(
            directory / WEIGHTS_FILE,
            lambda path: safetensors.numpy.save_file(tensors, path, metadata),
        )
        _replace(
            directory / SPEC_FILE, lambda path: path.write_text(text, encoding="utf-8")
        )
    except OSError as error:
        raise UserError(f"cannot write a model to {directory}: {error}") from None


def load_model(
    directory: str | os.PathLike[str], *, dtype: DTypeLike = jnp.float32
) -> Model:
    """Read a model directory; the weights come to the default device.

    Args:
      directory: as written by ``save_model``.
      dtype: type of the network's arithmetic; weights are float32 in any case.

    Raises:
      UserError: a file is missing, damaged, of another format, or the two files do
        not belong together; names the file.
    """
    directory = Path(directory)
    spec = read_spec(directory)
    network = spec.make_network(dtype=dtype)
    path = directory / WEIGHTS_FILE
    tensors = _read_weights(path)
    try:
        variables = torch_weights.derived_variables(
            tensors, network, image_size=spec.image_size
        )
    except UserError as error:
        raise UserError(f"{path} does not fit {SPEC_FILE}: {error}") from None
    _check_channels(path, variables, spec)
    return Model(network, jax.tree.map(jnp.asarray, variables), spec)


def read_spec(directory: str | os.PathLike[str]) -> ModelSpec:
    """Read ``model.json`` alone.

    Raises:
      UserError: as in ``load_model``.
    """
    path = Path(directory) / SPEC_FILE
    _check_ordinary(path)
    try:
        with path.open(encoding="utf-8") as file:
            return ModelSpec.from_json(file.read(MAX_TEXT + 1))
    except FileNotFoundError:
        raise UserError(_missing(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read {path}: {error}; give a folder made by train.retrain or "
            "adarts_jax.convert"
        ) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        return f"no model directory {folder}: it {what}"
    present = ", ".join(sorted(entry.name for entry in folder.iterdir())[:6])
    return (
        f"{folder} is not a model directory: it has no {path.name} (it contains: "
        f"{present or 'nothing'})"
    )


def _check_ordinary(path: Path) -> None:
    """Refuse what would never end or never begin to be read, such as a pipe."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is no ordinary file; copy the model again")


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    _check_ordinary(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            types = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
            wrong = [
                f"{shorten(k)} {kind}" for k, kind in types.items() if kind != "F32"
            ]
            if wrong:
                raise UserError(
                    f"{path} has weights that are not float32: {', '.join(wrong[:5])}"
                )
            tensors = {key: file.get_tensor(key) for key in types}
    except FileNotFoundError:
        raise UserError(_missing(path)) from None
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{path} is damaged, incomplete or no safetensors file "
            f"({shorten(error, 200)}); copy it again or save the model again"
        ) from None
    if wrong := [shorten(k) for k, x in tensors.items() if not np.isfinite(x).all()]:
        raise UserError(
            f"{path} is damaged: weights are not finite ({', '.join(wrong[:5])}); copy "
            "it again or train again"
        )
    return tensors


def _check_channels(path: Path, variables: PyTree, spec: ModelSpec) -> None:
    """The channels of the images are the one thing the network itself leaves open."""
    found = variables["params"]["stem"]["conv_0"]["kernel"].shape[2]
    if found != spec.image_channels:
        raise UserError(
            f"{path} is for images of {found} channels, but {SPEC_FILE} says "
            f"image_channels={spec.image_channels}"
        )


def _export(variables: PyTree, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Name every number, or say what is not of this network."""
    network = spec.make_network()
    try:
        tensors = torch_weights.derived_state_dict(variables, network)
        # For its checks of names and shapes.
        torch_weights.derived_variables(tensors, network, image_size=spec.image_size)
    except (UserError, IndexError, ValueError) as error:
        raise UserError(
            f"the variables are not those of the network of the spec: {error}"
        ) from None
    named = sum(tensor.size for tensor in tensors.values())
    given = sum(np.size(leaf) for leaf in jax.tree.leaves(variables))
    if named != given:  # export leaves out what no rule knows
        raise UserError(
            f"the variables have {given} numbers, the network of the spec {named}; is "
            "there an auxiliary head that the spec lacks?"
        )
    return tensors


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name, then put it in place in one move."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
