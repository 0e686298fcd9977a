"""Test session: CPU, cheap compilation, and where the shared facts are."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

ROOT = Path(__file__).resolve().parent.parent
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of goldens and data; skip where it is missing."""
    path = Path(os.environ.get("ADARTS_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"shared folder {path} not found; set ADARTS_SHARED")
    return path
