"""Compiled programs that many runs of a test share."""

import contextlib
import os
from collections.abc import Iterator

import jax
import pytest


@contextlib.contextmanager
def shared_programs(factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let all runs of a session share compiled programs, however small.

    Also those of pytest-xdist's other processes, and of processes started inside.
    """
    place = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    place = place / "compiled"
    place.mkdir(mode=0o700, exist_ok=True)
    name = "jax_persistent_cache_min_compile_time_secs"
    least = getattr(jax.config, name)
    jax.config.update(name, 0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("ADARTS_CACHE", str(place))
        monkeypatch.setenv(name.upper(), "0")
        yield
    jax.config.update(name, least)
