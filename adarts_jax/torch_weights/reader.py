"""Read a ``.pt`` file that nobody vouches for: data in, nothing executed.

Three walls, each sufficient against most of what is known: our own reading of file
and pickle decides what may be there and whether its numbers are (before PyTorch is even
imported); PyTorch reads with ``weights_only=True`` and in a version without known
holes; what comes back is compared with what was announced. There is no other way in:
a file that does not pass is refused.
"""

import io
import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adarts_jax.errors import UserError
from adarts_jax.torch_weights import containers
from adarts_jax.torch_weights.tensor_outline import OutlineError, Tensor

MAX_FILE_BYTES = 2**30

# Two names may share their numbers, as tied embeddings do; more would be a trick.
MAX_SHARING = 2

# Ways to run code in spite of weights_only=True, and the version without them.
KNOWN_HOLES = (("CVE-2025-32434", (2, 6, 0)), ("CVE-2026-24747", (2, 10, 0)))

_INSTALL = "pip install 'adarts-jax[torch]'"
_WRAPPED = "state_dict"

_logger = logging.getLogger(__name__)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a ``.pt`` file written by ``torch.save``, zip or legacy.

    The file holds a state dict, or a dictionary with one under ``"state_dict"``.

    Args:
      path: the file; it may be hostile.

    Returns:
      Arrays by name, as spelled in the file; floating point as float32.

    Raises:
      UserError: no such file, another kind of file, damaged, something in it that is
        no state dict, or PyTorch is missing or too old.
    """
    data = _read_bytes(path)
    try:
        outline = containers.describe(data)
        expected = _select(outline.root)
        _check_entries(expected)
    except OutlineError as error:
        raise UserError(f"{str(path)!r} {error}") from None
    tensors = _select(_load(data, path))
    arrays = {name: _to_numpy(tensor) for name, tensor in tensors.items()}
    found = {name: array.shape for name, array in arrays.items()}
    if found != {name: tensor.shape for name, tensor in expected.items()}:
        raise UserError(f"{str(path)!r} does not hold what it announces")
    _tell_types(path, tensors)
    return arrays


def import_torch() -> Any:
    """Return the module, in a version without known holes.

    Raises:
      UserError: missing or too old.
    """
    try:
        import torch
    except ImportError:
        raise UserError(
            f".pt files need PyTorch; install it with: {_INSTALL}"
        ) from None
    check_version(torch.__version__)
    return torch


def check_version(version: str) -> None:
    """Check that a version of PyTorch reads foreign files without running them.

    Raises:
      UserError: it has a known hole.
    """
    public = version.partition("+")[0]
    numbers = tuple(map(int, re.findall(r"\d+", public)[:3]))
    early = re.search(r"\d(a|b|rc|\.dev)", public) is not None
    for hole, fixed in KNOWN_HOLES:
        if numbers < fixed or (numbers == fixed and early):
            raise UserError(
                f"PyTorch {version} can be made to run code by a .pt file ({hole}, "
                f"fixed in {'.'.join(map(str, fixed))}); update it with: "
                f"{_INSTALL} --upgrade"
            )


def _read_bytes(path: Path) -> bytes:
    """Read the whole file once: what is checked is what is loaded."""
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; give the .pt file itself")
    if path.exists() and not path.is_file():
        raise UserError(f"{str(path)!r} is no ordinary file; give a .pt file")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UserError(
                f"{str(path)!r} has {size} bytes, more than the {MAX_FILE_BYTES} that "
                "are read; save the state dict alone, without the optimizer"
            )
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {str(path)!r}: {error.strerror}; give another file"
        ) from None


def _select(root: Any) -> Mapping[str, Any]:
    """Return the state dict: the root itself, or its entry of that name."""
    if isinstance(root, Mapping) and isinstance(root.get(_WRAPPED), Mapping):
        return root[_WRAPPED]
    return root


def _check_entries(expected: Any) -> None:
    """Check the announced entries: names, tensors, and what copies of them cost."""
    if not isinstance(expected, Mapping) or not expected:
        kind = "nothing" if not expected else f"a {type(expected).__name__}"
        raise OutlineError(f"holds {kind}, not a state dict")
    others = [n for n, value in expected.items() if not isinstance(value, Tensor)]
    if others or not all(isinstance(name, str) for name in expected):
        named = ", ".join(repr(name)[:40] for name in others[:5])
        raise OutlineError(
            f"holds {len(expected)} entries that are no state dict ({named} ...); save "
            f"the state_dict() alone or under {_WRAPPED!r}"
        )
    shown = sum(tensor.nbytes for tensor in expected.values())
    stored = sum(s.nbytes for s in {tensor.storage for tensor in expected.values()})
    if shown > MAX_SHARING * stored:
        raise OutlineError(
            f"shows {stored} stored bytes as tensors of {shown} bytes; save its "
            "state_dict() with tensors of their own"
        )


def _load(data: bytes, path: Path) -> Any:
    """Let PyTorch read what was found harmless."""
    torch = import_torch()
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"PyTorch refuses {str(path)!r}: {reason}") from None


def _to_numpy(tensor: Any) -> np.ndarray:
    """Copy a dense tensor; NumPy has no bfloat16."""
    torch = import_torch()
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise UserError("a tensor is not an ordinary one")
    plain = tensor.detach()
    if plain.is_floating_point():
        plain = plain.to(torch.float32)
    return plain.clone(memory_format=torch.contiguous_format).numpy()


def _tell_types(path: Path, tensors: Mapping[str, Any]) -> None:
    kinds = {str(t.dtype) for t in tensors.values() if t.is_floating_point()}
    if others := sorted(kinds - {"torch.float32"}):
        _logger.warning(
            "%r has weights of type %s, which become float32",
            str(path),
            ", ".join(others),
        )
