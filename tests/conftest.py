"""Test session: CPU, cheap compilation, and where the shared facts are."""

import gc
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests run a program a few times, so compiling is what costs. Without optimization the
# gradient of a small search network compiles five times as fast. Programs started by
# tests inherit this, so that their results stay comparable bit for bit.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",
    ]
)

import jax
import pytest

ROOT = Path(__file__).resolve().parent.parent
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def only_young_garbage() -> None:
    """Let no collection look at what earlier modules left.

    Programs collect all garbage after compiling; with a session's millions of objects
    that took as long as everything else.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of goldens and data; skip where it is missing."""
    path = Path(os.environ.get("ADARTS_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"shared folder {path} not found; set ADARTS_SHARED")
    return path
