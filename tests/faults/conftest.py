"""Runs that never met a fault, to compare with; programs compiled once for all."""

import fake_search
import pytest
from fault_tools import run
from shared_programs import shared_programs

from adarts_jax.report import page


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Let all runs share compiled programs, those of other processes too."""
    with shared_programs(tmp_path_factory):
        yield


@pytest.fixture
def quick(monkeypatch):
    """Search on the fake, without pictures, looking up after each step."""
    fake_search.install_quick(monkeypatch)
    return monkeypatch


@pytest.fixture(scope="session")
def wholes(compiled_once, tmp_path_factory):
    """Return a function from a kind to a run that nothing happened to.

    With and without pictures, as a process of its own or a quick run leaves it.
    """
    found = {}

    def whole(kind, *, drawn=False):
        if (kind, drawn) not in found:
            place = tmp_path_factory.mktemp("whole") / kind
            with pytest.MonkeyPatch.context() as monkeypatch:
                if kind == "fake":
                    fake_search.install(monkeypatch)
                if not drawn:
                    monkeypatch.setattr(page, "report_run", lambda place, result: None)
                assert run(kind, place) == 0
            found[kind, drawn] = place
        return found[kind, drawn]

    return whole
