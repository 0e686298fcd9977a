"""Files of a run: written so that a crash leaves either the old content or the new."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adarts_jax.errors import UserError


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name, then put it in place in one move.

    Args:
      path: the file; its folder must exist.
      write: writes the whole content to the path it is given.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file."""
    replace(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file, indented for people."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(
    path: Path, way_out: str = "bring it back from a copy, or start a new run"
) -> dict[str, Any]:
    """Read a JSON object that a run wrote.

    Args:
      path: the file.
      way_out: what to do if it is damaged.

    Raises:
      UserError: it cannot be read, or is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}; {way_out}") from error
    if not isinstance(value, dict):
        raise UserError(f"{str(path)!r} does not hold a JSON object; {way_out}")
    return value
