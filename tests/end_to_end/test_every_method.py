"""Every way to search, on the digits: it learns, and a stopped run resumes.

Minutes in all, because each compiles a network of its own.
"""

import signal

import numpy as np
import pytest
from test_search import contents, signal_at

import adarts_jax as aj
from adarts_jax.config import SearchConfig
from adarts_jax.engine import pacing
from adarts_jax.engine.outcomes import Interrupted
from adarts_jax.engine.search_loop import search

pytestmark = pytest.mark.slow

SMALL = {
    "epochs": 3,
    "warmup_epochs": 1,
    "data": {"num_examples": 512},
    "network": {"num_cells": 2},
    "weights": {"learning_rate": 0.1},
}
# What a method needs to train at all; without it random search only draws.
NEEDED = {"random": {"options": {"weight_sharing": True}}}
# Other ways to search, that not every method has.
WAYS = {
    "second order": {"architecture": {"order": "second"}},
    "second order, exact": {"architecture": {"order": "second", "hessian": "exact"}},
    "second order of Att-DARTS": {
        "architecture": {"order": "second"},
        "compat": {"att_darts": True, "architecture_batches": "one_pass"},
    },
    "random channels": {"method": "pc_darts", "options": {"channel_choice": "random"}},
}


def config_of(way: str) -> SearchConfig:
    values = {"method": way} | NEEDED.get(way, {})
    if way in WAYS:
        values = {"method": "darts"} | WAYS[way]
    return SearchConfig.model_validate(SMALL | values)


@pytest.fixture(scope="module", params=[*aj.METHODS, *WAYS])
def finished(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param.replace(" ", "_")) / "run"
    return request.param, search(config_of(request.param), out=place)


def test_an_epoch_lowers_the_loss(finished):
    way, result = finished
    first, last = (result.metrics[i]["weight/loss"] for i in (0, -1))
    if way != "random":  # else every step has another network
        assert last < first - 0.05
    assert np.isfinite(last)


def test_the_architecture_moves_after_warm_up(finished):
    way, result = finished
    assert result.metrics[0]["architecture/loss"] is None
    assert result.metrics[-1]["architecture/loss"] > 0
    assert aj.Genotype.load(result.run_directory / "genotype.json") == result.genotype
    if way != "random":
        assert result.metrics[-1]["architecture/gradient_norm"] > 0


def test_a_stopped_run_resumes_bit_for_bit(finished, tmp_path, monkeypatch):
    way, result = finished
    place = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(pacing, "CHUNK_SECONDS", 0.0)  # progress after every step
        signal_at(patch, 11, signal.SIGTERM)  # in the second of three epochs
        with pytest.raises(Interrupted):
            search(config_of(way), out=place)
    search(config_of(way), out=place, resume=True)
    assert contents(place, epochs=3) == contents(result.run_directory, epochs=3)
