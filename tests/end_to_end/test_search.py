"""The real program, again and again: stop, resume, break, overwrite.

Most of it on a linear classifier in the place of the search network (`fake_search`),
so that the host side is tested in seconds; the last test takes the real network.
"""

import json
import os
import signal
from pathlib import Path

import fake_search
import jax.numpy as jnp
import numpy as np
import pytest
from shared_programs import shared_programs

from adarts_jax.engine import devices, pacing, search_problem
from adarts_jax.engine.console import Console
from adarts_jax.report import page
from adarts_jax.search import main
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.operations import ALPHA_ADARTS_PRIMITIVES

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    *("--epochs", "4", "--warmup-epochs", "2", "--batch-size", "16"),
    *("--data.num-examples", "200"),
]
STEPS = 6  # per epoch: 100 images in batches of 16


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Let all runs share compiled programs, however small."""
    with shared_programs(tmp_path_factory):
        yield


@pytest.fixture
def fake(monkeypatch):
    """Search on the fake without pictures, looking at the signals after each step."""
    fake_search.install_quick(monkeypatch)
    return monkeypatch


def run(place, *argv):
    return main([*SHORT, "--out", str(place), *argv])


def records(place):
    file = place / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def untimed(place):
    return [
        {name: value for name, value in record.items() if not name.startswith("time/")}
        for record in records(place)
    ]


def contents(place, epochs=4):
    """Return all that must not depend on how a run was cut into pieces."""
    files = ["config.json", "splits.json", "genotype.json"]
    files += [f"genotypes/epoch_{epoch:03d}.json" for epoch in range(epochs)]
    texts = {name: (place / name).read_text() for name in files}
    with np.load(place / "architecture.npz") as arrays:
        weights = {name: arrays[name].tobytes() for name in arrays}
    last = max((place / "checkpoints").iterdir(), key=lambda path: int(path.name))
    meta = json.loads((last / "meta" / "metadata").read_text())
    return texts, weights, untimed(place), last.name, meta["crc32"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return a run that never stopped."""
    place = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_search.install(monkeypatch)
        assert run(place) == 0
    return place


def signal_at(monkeypatch, step, signum):
    """Send this process a signal when the run has done a number of steps."""
    original = Console.progress

    def progress(self, done, description, seconds_per_step):
        if done == step:
            os.kill(os.getpid(), signum)
        original(self, done, description, seconds_per_step)

    monkeypatch.setattr(Console, "progress", progress)


def test_a_run_leaves_everything_behind(monkeypatch, tmp_path, capsys):
    fake_search.install(monkeypatch)
    place = tmp_path / "run"
    assert run(place) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary["run_directory"] == str(place)
    genotype = Genotype.load(summary["genotype"])
    assert genotype == Genotype.load(place / "genotypes" / "epoch_003.json")
    assert [record["epoch"] for record in records(place)] == [0, 1, 2, 3]
    assert [record["step"] for record in records(place)] == [6, 12, 18, 24]
    for name in ("normal", "reduction"):
        for suffix in ("svg", "png"):
            assert (place / "cells" / f"{name}.{suffix}").stat().st_size > 1000
    assert (place / "learning_curves.svg").is_file()
    assert "Finished; 4 epochs recorded." in (place / "report.html").read_text()
    config = json.loads((place / "config.json").read_text())
    assert config["data"]["num_examples"] == 200
    session = json.loads((place / "manifest.json").read_text())["sessions"][0]
    assert session["command"].startswith("python -m adarts_jax.search --epochs 4")
    assert session["predicted_memory_bytes"] > 0
    assert "architecture frozen until epoch 2" in err
    assert [path.name for path in place.glob(".*")] == []


def test_records_say_what_happened(uninterrupted):
    first, *_, last = found = records(uninterrupted)
    frozen = [record["architecture/loss"] is None for record in found]
    assert frozen == [True, True, False, False]
    assert first["weight/learning_rate"] == 0.025
    assert last["weight/learning_rate"] < 0.01
    assert last["weight/loss"] < first["weight/loss"]
    assert all(0 < record["weight/accuracy"] < 1 for record in found)
    assert 0 < last["architecture/entropy_normal"] <= np.log(8) + 1e-6
    assert last["architecture/edge_entropy_reduce"] > 0
    for quantity in ("skip", "pool", "none"):
        assert 0 <= last[f"genotype/normal/{quantity}"] <= 1
    assert "time/compile_seconds" in first
    assert "time/compile_seconds" not in last


def test_the_same_seed_gives_the_same_run_and_another_does_not(
    fake, uninterrupted, tmp_path
):
    assert run(tmp_path / "same") == 0
    assert contents(tmp_path / "same") == contents(uninterrupted)
    assert run(tmp_path / "other", "--seed", "3") == 0
    assert untimed(tmp_path / "other") != untimed(uninterrupted)


@pytest.mark.parametrize(
    ("step", "signum", "status"),
    [
        (1, signal.SIGINT, 130),
        (9, signal.SIGTERM, 143),
        (12, signal.SIGTERM, 143),
        (23, signal.SIGINT, 130),
    ],
)
def test_stopped_and_resumed_is_bit_for_bit_the_same(
    fake, uninterrupted, tmp_path, capsys, step, signum, status
):
    """Stops in and between epochs, in the warm-up and after it."""
    place = tmp_path / "run"
    with fake.context() as patch:
        signal_at(patch, step, signum)
        assert run(place) == status
    err = capsys.readouterr().err
    line = err.splitlines()[-1]
    assert line.startswith(f"interrupted: saved at step {step} of 24; continue with")
    assert not (place / "genotype.json").exists()
    assert len(records(place)) == step // STEPS
    # the config of the run is enough
    assert main(["--out", str(place), "--resume"]) == 0
    assert contents(place) == contents(uninterrupted)
    sessions = json.loads((place / "manifest.json").read_text())["sessions"]
    assert [session["first_step"] for session in sessions] == [0, step]


def test_a_loop_on_the_device_resumes_the_same(fake, tmp_path):
    """As on accelerators: chunks of several steps in one call."""
    fake.setattr(devices, "loops_on_the_host", lambda: False)
    assert run(tmp_path / "chunks") == 0
    with fake.context() as patch:
        patch.setattr(pacing, "CHUNK_SECONDS", 1e6)  # one step, then whole epochs
        signal_at(patch, 1, signal.SIGTERM)
        assert run(tmp_path / "stopped") == 143
        assert run(tmp_path / "stopped", "--resume") == 0
    assert contents(tmp_path / "stopped") == contents(tmp_path / "chunks")


def test_a_signal_at_the_last_step_does_not_keep_the_result_back(fake, tmp_path):
    signal_at(fake, 24, signal.SIGTERM)
    assert run(tmp_path / "run") == 0
    assert (tmp_path / "run" / "genotype.json").is_file()


def test_several_stops_and_a_torn_record(fake, uninterrupted, tmp_path):
    place = tmp_path / "run"
    for step in (5, 13, 14):
        with fake.context() as patch:
            signal_at(patch, step, signal.SIGTERM)
            assert run(place, *([] if step == 5 else ["--resume"])) == 143
        with (place / "metrics.jsonl").open("a") as file:
            file.write('{"epoch": 2, "ste')
    assert run(place, "--resume") == 0
    assert contents(place) == contents(uninterrupted)


def test_a_finished_run_resumes_to_its_result(fake, uninterrupted, tmp_path):
    place = tmp_path / "run"
    assert run(place) == 0
    (place / "genotype.json").unlink()
    assert run(place, "--resume") == 0
    assert contents(place) == contents(uninterrupted)


def test_overwrite_starts_anew(fake, uninterrupted, tmp_path):
    place = tmp_path / "run"
    assert run(place, "--seed", "3") == 0
    assert run(place) == 2
    assert run(place, "--overwrite") == 0
    assert contents(place) == contents(uninterrupted)


def test_resuming_something_else_shows_the_difference(fake, tmp_path, capsys):
    place = tmp_path / "run"
    with fake.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        run(place)
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert run(place, "--resume", "--network.init-channels", "16") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "network.init_channels: 8 -> 16" in err
    assert before == {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}


def test_resuming_with_other_images_is_noticed(fake, tmp_path, capsys):
    file, place = tmp_path / "data.npz", tmp_path / "run"
    argv = ["--data.source", "npz", "--data.data-dir", str(file)]
    labels = np.arange(200) % 2
    np.savez(file, images=np.zeros((200, 8, 8, 1), np.uint8), labels=labels)
    with fake.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        assert run(place, *argv) == 143
    moved = file.rename(tmp_path / "moved.npz")
    np.savez(file, images=np.ones((200, 8, 8, 1), np.uint8), labels=labels)
    assert run(place, *argv, "--resume") == 2
    assert "started with other images" in capsys.readouterr().err
    assert run(place, *argv, "--resume", "--data.data-dir", str(moved)) == 0


def test_a_loss_that_is_not_finite_stops_the_run(fake, tmp_path, capsys):
    place = tmp_path / "run"
    update = fake_search.search_phase

    def explode(state, *batch, weight_learning_rate, **settings):
        rate = jnp.where(state.step == 8, jnp.inf, weight_learning_rate)
        return update(state, *batch, weight_learning_rate=rate, **settings)

    fake.setattr(search_problem, "search_phase", explode)
    assert run(place) == 1
    out, err = capsys.readouterr()
    assert out == ""
    line = err.splitlines()[-1]
    start = "error: the loss or its gradient is not finite at step 9 (epoch 1); "
    assert line.startswith(start)
    assert "the checkpoint of step 6 is kept" in line
    assert "weights.learning_rate (now 0.025)" in line
    assert len(records(place)) == 1
    assert sorted(p.name for p in (place / "checkpoints").iterdir()) == ["0", "6"]
    assert not (place / "genotype.json").exists()


def test_the_real_network_stopped_and_resumed(monkeypatch, tmp_path):
    """The smallest search network there is, on real images, both kinds of epoch."""
    monkeypatch.setattr(page, "report_run", lambda place, result: None)
    monkeypatch.setattr(pacing, "CHUNK_SECONDS", 0.0)
    small = [
        *("--network.num-cells", "1", "--network.init-channels", "4"),
        *("--network.channel-divisor", "4", "--warmup-epochs", "1"),
        *("--epochs", "2", "--batch-size", "8", "--data.num-examples", "48"),
    ]
    place, whole = tmp_path / "run", tmp_path / "whole"
    assert main([*small, "--out", str(whole)]) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 5, signal.SIGTERM)
        assert main([*small, "--out", str(place)]) == 143
    assert main(["--out", str(place), "--resume"]) == 0
    assert contents(place, epochs=2) == contents(whole, epochs=2)
    first, last = records(whole)
    assert first["architecture/loss"] is None
    assert last["architecture/loss"] > 0
    assert last["weight/tied_edges"] >= 0
    assert {entry.op for entry in Genotype.load(whole / "genotype.json").normal} <= set(
        ALPHA_ADARTS_PRIMITIVES
    )
