"""Two runs of one seed leave the same files, bit by bit; clocks apart."""

import json
from pathlib import Path

import fake_search
import jax
import pytest
from tiny_model import SPEC

from adarts_jax import search
from adarts_jax.engine.metrics import TIME_PREFIX
from train import retrain

COMMON = [
    *("--epochs", "2", "--batch-size", "16", "--data.num-examples", "64"),
    *("--network.num-cells", "1", "--network.init-channels", "4", "--data.flip"),
]
RETRAIN = ["--network.drop-path-rate", "0.3", "--data.cutmix-probability", "0.5"]
RETRAIN += ["--data.held-out-fraction", "0.25"]

# Clocks are in these; of a checkpoint the check sums are compared.
CLOCKED = {"manifest.json", "metrics.jsonl", "report.html"}


@pytest.fixture(autouse=True)
def compiled_once(tmp_path, monkeypatch):
    """Let both runs share compiled programs, however small."""
    option = "jax_persistent_cache_min_compile_time_secs"
    least = getattr(jax.config, option)
    jax.config.update(option, 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADARTS_CACHE", str(tmp_path / "compiled"))
    yield
    jax.config.update(option, least)


def contents(run: Path) -> dict[str, object]:
    """Return what two runs must have in common, by name of the file."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run)
        if path.is_file() and name.name not in CLOCKED | {"config.json"}:
            if name.parts[0] != "checkpoints":
                found[str(name)] = path.read_bytes()
            elif name.parts[2] == "meta" and name.name == "metadata":
                found[str(name)] = json.loads(path.read_text())
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found["metrics"] = [
        {k: v for k, v in json.loads(line).items() if not k.startswith(TIME_PREFIX)}
        for line in lines
    ]
    config = json.loads((run / "config.json").read_text())
    found["config"] = {**config, "deterministic": None}
    return found


def test_two_trainings_leave_the_same_files():
    SPEC.genotype.save("genotype.json")
    compare(retrain.main, ["--genotype", "genotype.json", *RETRAIN])


def test_two_searches_leave_the_same_files(monkeypatch):
    fake_search.install(monkeypatch)  # a linear network; all else is as ever
    compare(search.main, ["--warmup-epochs", "1"])


@pytest.mark.slow
def test_two_searches_of_a_network_leave_the_same_files():
    compare(search.main, ["--method", "pc_darts", "--warmup-epochs", "1"])


def compare(main, own: list[str]) -> None:
    """Run a program twice; ``--deterministic`` changes nothing on a CPU."""
    assert main([*own, *COMMON, "--out", "one"]) == 0
    assert main([*own, *COMMON, "--out", "two", "--deterministic"]) == 0
    one, two = (contents(Path(name)) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    first, second = one["metrics"]
    loss = next(name for name in first if name.endswith("/loss"))
    assert first[loss] != second[loss]  # there is something to compare
    assert any("crc32" in str(value) for value in one.values())
