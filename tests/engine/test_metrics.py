"""metrics.jsonl: valid JSON, no epoch twice, none missing."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from adarts_jax.bilevel.steps import ARCHITECTURE, WEIGHT
from adarts_jax.engine.epoch import MetricSums
from adarts_jax.engine.metrics import MetricLog, means
from adarts_jax.errors import UserError


def test_values_are_plain_and_not_a_number_is_null(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    record = {
        "epoch": 0,
        "loss": np.float32(0.1),
        "nan": np.float32("nan"),
        "inf": math.inf,
        "flag": np.bool_(True),
        "count": np.int32(3),
        "text": "x",
        "none": None,
    }
    log.append(record)
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line.endswith("\n")
    assert '"loss": 0.1,' in line  # not 0.10000000149011612
    assert json.loads(line, parse_constant=pytest.fail) == {
        **{"epoch": 0, "loss": 0.1, "nan": None, "inf": None},
        **{"flag": True, "count": 3, "text": "x", "none": None},
    }


def test_unfinished_work_is_taken_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path)
    for epoch in range(4):
        log.append({"epoch": epoch, "loss": 1 / (epoch + 3)})
    before = path.read_text().splitlines()
    with path.open("a") as file:
        file.write('{"epoch": 4, "lo')
    assert [record["epoch"] for record in log.records()] == [0, 1, 2, 3]
    log.keep_before(2)
    assert path.read_text().splitlines() == before[:2]
    log.append({"epoch": 2, "loss": 0.0})
    assert [record["epoch"] for record in log.records()] == [0, 1, 2]


def test_a_complete_last_line_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n{"epoch": 1}\n')
    assert len(MetricLog(path).records()) == 2


def test_no_file_is_no_record(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    assert log.records() == []
    log.keep_before(0)
    assert log.records() == []


def test_damage_inside_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0\n{"epoch": 1}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl' is damaged"):
        MetricLog(path).records()


def test_means_divide_by_the_steps():
    sums = jnp.zeros((2, 2)).at[WEIGHT].set(jnp.array([3.0, 6.0]))
    sums = sums.at[ARCHITECTURE].set(jnp.array([1.0, jnp.nan]))
    summed = MetricSums(sums, jnp.int32(4), jnp.int32(-1))
    phases = {"weight": WEIGHT, "architecture": ARCHITECTURE}
    found = means(summed, phases, ("loss", "accuracy"))
    assert found["weight/loss"] == np.float32(0.75)
    assert found["weight/accuracy"] == np.float32(1.5)
    assert found["architecture/loss"] == np.float32(0.25)
    assert np.isnan(found["architecture/accuracy"])
