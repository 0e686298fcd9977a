"""Read a small text file, or say what it is instead. Knows no genotype."""

import os
from pathlib import Path

from adarts_jax.errors import UserError, did_you_mean

MAX_BYTES = 65_536

_SIGNATURES = (
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint or an .npz file?)"),
    (b"\x80", "a Python pickle (a PyTorch checkpoint?)"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"<", "an HTML, XML or SVG document"),
)


def read_small_text(path: str | Path) -> str:
    """Return the text of a file of at most ``MAX_BYTES`` bytes, as UTF-8.

    Raises:
      UserError: missing, a folder, empty, too large, or not text; names the path.
    """
    path = Path(path)
    data = _read_limited(path)
    description = _describe(data)
    if description:
        raise UserError(f"{path} is not a genotype file: it looks like {description}")
    if len(data) > MAX_BYTES:
        raise UserError(
            f"{path} is too large for a genotype file (more than {MAX_BYTES} bytes)"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a genotype file: not UTF-8 text") from None


def _read_limited(path: Path) -> bytes:
    """Read one byte more than allowed, so that a huge file is noticed cheaply."""
    # Opening a pipe would wait for ever.
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UserError(f"{path} is no ordinary file; give a genotype file")
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"no genotype file {path}{_neighbour(path)}") from None
    except IsADirectoryError:
        inside = path / "genotype.json"
        hint = f"; did you mean {inside}?" if os.path.isfile(inside) else ""
        raise UserError(f"{path} is a folder, not a genotype file{hint}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"cannot read {path}: {reason}; give another file") from None
    except ValueError as error:  # a null byte in the path
        raise UserError(f"cannot read {str(path)!r}: {error}") from None


def _neighbour(path: Path) -> str:
    """Suggest the closest name in the same folder."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"; the folder {path.parent} does not exist"
    return did_you_mean(path.name, names)


def _describe(data: bytes) -> str:
    """Say what data is, if it is clearly not a text; otherwise an empty string."""
    if not data.strip():
        return "an empty file"
    for signature, description in _SIGNATURES:
        if data.startswith(signature):
            return description
    if data[8:9] == b"{" and b"\x00" in data[:8]:
        return "safetensors weights"
    return ""
