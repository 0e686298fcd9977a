"""Compiled programs that many runs of a test share."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest


@contextlib.contextmanager
def shared_programs(place: Path) -> Iterator[None]:
    """Let all runs inside share compiled programs, however small.

    Args:
      place: of the compilation cache; other processes that are started inside use it.
    """
    name = "jax_persistent_cache_min_compile_time_secs"
    least = getattr(jax.config, name)
    jax.config.update(name, 0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("ADARTS_CACHE", str(place))
        monkeypatch.setenv(name.upper(), "0")
        yield
    jax.config.update(name, least)
