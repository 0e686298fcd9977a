"""Writing files so that a crash leaves either the old content or the new."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
