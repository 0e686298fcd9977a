"""The real program on the smallest network: train, stop, resume, break, overwrite."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from shared_programs import shared_programs

import adarts_jax as aj
from adarts_jax.engine import devices, evaluation, pacing, retrain_program, session
from adarts_jax.engine.console import Console
from adarts_jax.report import page
from train import evaluate
from train.retrain import main

ROOT = Path(__file__).resolve().parents[2]
CELL = [("max_pool_3x3", 0), ("skip_connect", 1)]
GENOTYPE = aj.Genotype(CELL, [2], CELL, [2])
SHORT = [
    *("--network.num-cells", "1", "--network.init-channels", "2"),
    *("--epochs", "3", "--batch-size", "16", "--data.num-examples", "110"),
    *("--data.held-out-fraction", "0.1", "--data.cutmix-probability", "0.5"),
    *("--network.drop-path-rate", "0.3", "--weights.ema-decay", "0.5"),
]
STEPS = 6  # per epoch: 99 images in batches of 16


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Let all runs share compiled programs, however small."""
    with shared_programs(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def genotype(tmp_path_factory):
    file = tmp_path_factory.mktemp("genotype") / "genotype.json"
    GENOTYPE.save(file)
    return file


@pytest.fixture
def quick(monkeypatch, genotype):
    """Train without pictures, looking at the signals after each step."""
    monkeypatch.setattr(pacing, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(page, "report_run", lambda place, result: None)
    return monkeypatch


@pytest.fixture
def run(genotype):
    def run(place, *argv):
        name = ["--genotype", str(genotype)]
        return main([*name, *SHORT, "--out", str(place), *argv])

    return run


def records(place):
    file = place / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def untimed(place):
    return [
        {name: value for name, value in record.items() if not name.startswith("time/")}
        for record in records(place)
    ]


def contents(place):
    """Return all that must not depend on how a run was cut into pieces."""
    files = ["config.json", "splits.json", "genotype.json", "summary.json"]
    files += [f"{m}/model.json" for m in ("model", "model_selected")]
    texts = {name: (place / name).read_text() for name in files}
    models = ("model", "model_selected")
    weights = [(place / m / "weights.safetensors").read_bytes() for m in models]
    last = max((place / "checkpoints").iterdir(), key=lambda path: int(path.name))
    meta = json.loads((last / "meta" / "metadata").read_text())
    return texts, weights, untimed(place), last.name, meta["crc32"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, genotype):
    """Return a run that never stopped."""
    place = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(page, "report_run", lambda place, result: None)
        argv = ["--genotype", str(genotype), *SHORT, "--out", str(place)]
        assert main(argv) == 0
    return place


def signal_when(monkeypatch, text, signum):
    """Send this process a signal when the progress says something."""
    original = Console.progress

    def progress(self, done, description, seconds_per_step):
        if text in f"step {done}: {description}":
            os.kill(os.getpid(), signum)
        original(self, done, description, seconds_per_step)

    monkeypatch.setattr(Console, "progress", progress)


def test_a_run_leaves_everything_behind(run, genotype, tmp_path, capsys):
    place = tmp_path / "run"
    assert run(place) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary["run_directory"] == str(place)
    assert summary.items() >= json.loads((place / "summary.json").read_text()).items()
    found = records(place)
    assert [record["step"] for record in found] == [6, 12, 18]
    tests = [record["test/accuracy"] for record in found]
    held_out = [record["held_out/accuracy"] for record in found]
    chosen = int(np.argmax(held_out))
    assert summary["headline"] == "last_epoch"
    assert summary["accuracy"] == summary["last_epoch_accuracy"] == tests[-1]
    assert summary["held_out_selected_accuracy"] == tests[chosen]
    assert summary["held_out_selected_epoch"] == chosen
    assert summary["best_on_test_accuracy"] == max(tests)
    assert (place / "learning_curves.svg").is_file()
    assert (place / "cells" / "normal.png").is_file()
    report = (place / "report.html").read_text()
    assert "Finished; 3 epochs recorded." in report
    assert report.count("<svg") == 3  # two cells and the curves
    assert aj.Genotype.load(place / "genotype.json") == GENOTYPE
    for name, epoch in (("model", 2), ("model_selected", chosen)):
        spec = aj.load_model(str(place / name)).spec
        assert (spec.genotype, spec.provenance["epoch"]) == (GENOTYPE, epoch)
    session = json.loads((place / "manifest.json").read_text())["sessions"][0]
    assert session["command"].startswith("python -m train.retrain --genotype")
    assert "epoch 2 (3/3) | loss" in err
    assert [path.name for path in place.glob(".*")] == []


def test_records_say_what_happened(whole):
    first, second, third = records(whole)
    assert first["train/learning_rate"] == 0.025
    rates = [r["train/drop_path_rate"] for r in (first, second, third)]
    assert rates == pytest.approx([0, 0.1, 0.2])
    assert all(0 < r["train/gradient_norm"] < 100 for r in (first, second, third))
    assert third["train/loss"] < first["train/loss"]
    assert 0 <= third["test/accuracy"] <= third["test/top5_accuracy"] <= 1
    assert "time/compile_seconds" in first


def test_the_log_the_model_and_the_evaluation_agree(whole, capsys):
    capsys.readouterr()
    assert evaluate.main([str(whole / "model"), "--batch-size", "100"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["top1"] == records(whole)[-1]["test/accuracy"]
    assert found["num_images"] == 297
    assert found["loss"] == pytest.approx(records(whole)[-1]["test/loss"], rel=1e-5)


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_every_test_image_counts_once_whatever_the_batch(
    quick, run, whole, tmp_path, batch_size
):
    argv = ["--evaluation.batch-size", str(batch_size)]
    assert run(tmp_path / "run", *argv) == 0
    for found, wanted in zip(records(tmp_path / "run"), records(whole), strict=True):
        assert found["test/accuracy"] == wanted["test/accuracy"]
        assert found["held_out/accuracy"] == wanted["held_out/accuracy"]


@pytest.mark.parametrize(
    ("text", "signum", "status", "step", "recorded"),
    [
        ("step 1:", signal.SIGINT, 130, 1, 0),
        ("step 9:", signal.SIGTERM, 143, 9, 1),
        ("step 12: epoch 1, test", signal.SIGTERM, 143, 12, 1),
        ("step 18: epoch 2, held_out", signal.SIGINT, 130, 18, 2),
    ],
)
def test_stopped_and_resumed_is_bit_for_bit_the_same(
    quick, run, whole, tmp_path, capsys, text, signum, status, step, recorded
):
    """Stops in an epoch and in a test, which is then made up for."""
    place = tmp_path / "run"
    with quick.context() as patch:
        signal_when(patch, text, signum)
        assert run(place) == status
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"interrupted: saved at step {step} of 18; continue with")
    assert not (place / "summary.json").exists()
    assert len(records(place)) == recorded
    # the config of the run is enough
    assert main(["--out", str(place), "--resume"]) == 0
    assert contents(place) == contents(whole)


def test_the_genotype_may_move_between_parts_of_a_run(quick, run, whole, tmp_path):
    place = tmp_path / "run"
    with quick.context() as patch:
        signal_when(patch, "step 3:", signal.SIGTERM)
        assert run(place) == 143
    GENOTYPE.save(tmp_path / "moved.json")
    argv = ["--out", str(place), "--resume", "--genotype", str(tmp_path / "moved.json")]
    assert main(argv) == 0
    assert contents(place) == contents(whole)


def test_long_epochs_are_saved_in_between(quick, run, whole, tmp_path):
    quick.setattr(session, "SAVE_SECONDS", 0.0)
    place = tmp_path / "run"
    assert run(place) == 0
    steps = sorted(int(path.name) for path in (place / "checkpoints").iterdir())
    assert steps == [16, 17, 18]
    assert contents(place) == contents(whole)


def test_a_loop_on_the_device_resumes_the_same(quick, run, tmp_path):
    """As on accelerators: chunks of several steps in one call."""
    quick.setattr(devices, "loops_on_the_host", lambda: False)
    assert run(tmp_path / "chunks") == 0
    with quick.context() as patch:
        patch.setattr(pacing, "CHUNK_SECONDS", 1e6)  # one step, then whole epochs
        signal_when(patch, "step 1:", signal.SIGTERM)
        assert run(tmp_path / "stopped") == 143
    assert run(tmp_path / "stopped", "--resume") == 0
    assert contents(tmp_path / "stopped") == contents(tmp_path / "chunks")


def test_stopped_before_anything_was_saved(quick, run, whole, tmp_path):
    place = tmp_path / "run"
    place.mkdir()
    (place / "config.json").write_text((whole / "config.json").read_text())
    assert run(place, "--resume") == 0
    assert contents(place) == contents(whole)


def test_resuming_with_other_images_is_noticed(run, whole, tmp_path, capsys):
    place = tmp_path / "run"
    shutil.copytree(whole, place)
    manifest = (place / "manifest.json").read_text()
    fingerprint = json.loads(manifest)["data"]["fingerprint"]
    (place / "manifest.json").write_text(manifest.replace(fingerprint, "0"))
    assert run(place, "--resume") == 2
    assert "started with other images" in capsys.readouterr().err


def test_the_config_of_a_run_repeats_it(quick, whole, tmp_path):
    place = tmp_path / "run"
    assert main(["--config", str(whole / "config.json"), "--out", str(place)]) == 0
    assert contents(place) == contents(whole)


def test_the_log_of_a_bfloat16_training_is_that_of_its_model(
    quick, run, tmp_path, capsys
):
    place = tmp_path / "run"
    argv = ["--network.precision", "bfloat16", "--network.remat", "true"]
    assert run(place, *argv, "--epochs", "1") == 0
    capsys.readouterr()
    assert evaluate.main([str(place / "model")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["top1"] == records(place)[0]["test/accuracy"]
    assert found["loss"] == pytest.approx(records(place)[0]["test/loss"], rel=1e-5)


def test_overwrite_starts_anew_and_the_seed_decides(quick, run, whole, tmp_path):
    place = tmp_path / "run"
    assert run(place, "--seed", "3") == 0
    assert untimed(place) != untimed(whole)
    assert run(place) == 2
    assert run(place, "--overwrite") == 0
    assert contents(place) == contents(whole)


def kill_at_random(argv, place, *, times, longest):
    """Start and resume in a process of its own, with SIGKILL after random times."""
    random = np.random.default_rng(0)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))
    }
    for _ in range(times):
        resume = ["--resume"] if any((place / "checkpoints").glob("[0-9]*")) else []
        process = subprocess.Popen(
            [sys.executable, "-m", "train.retrain", *argv, *resume],
            env=environment,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        while not any(p.name.isdigit() for p in (place / "checkpoints").glob("*")):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(random.uniform(0, longest))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"


@pytest.mark.slow
def test_killed_three_times_a_real_network_ends_with_the_same_weights(quick, tmp_path):
    """Convolutions, both heads of a reduction, auxiliary loss: alpha-ADARTS, small."""
    images = np.random.default_rng(0).integers(0, 256, (600, 32, 32, 3), np.uint8)
    np.savez(
        tmp_path / "data.npz",
        **{
            "train_images": images,
            "train_labels": np.arange(600) % 10,
            "test_images": images[:100],
            "test_labels": np.arange(100) % 10,
        },
    )
    settings = [
        *("--genotype", "alpha_adarts", "--network.auxiliary", "true"),
        *("--network.init-channels", "4", "--network.num-cells", "3", "--epochs", "6"),
        *("--data.source", "npz", "--data.data-dir", str(tmp_path / "data.npz")),
        *("--network.drop-path-rate", "0.2", "--data.cutmix-probability", "0.5"),
        *("--data.held-out-fraction", "0.1"),
    ]
    place, whole = tmp_path / "run", tmp_path / "whole"
    assert main([*settings, "--out", str(whole)]) == 0
    argv = [*settings, "--out", str(place)]
    kill_at_random(argv, place, times=3, longest=20)
    assert main([*argv, "--resume"]) == 0
    assert contents(place) == contents(whole)


def test_a_loss_that_is_not_finite_stops_the_run(quick, run, tmp_path, capsys):
    update = retrain_program.retrain_step

    def explode(state, *batch, learning_rate, **settings):
        rate = jnp.where(state.step == 8, jnp.inf, learning_rate)
        return update(state, *batch, learning_rate=rate, **settings)

    quick.setattr(retrain_program, "retrain_step", explode)
    place = tmp_path / "run"
    assert run(place) == 1
    out, err = capsys.readouterr()
    assert out == ""
    line = err.splitlines()[-1]
    start = "error: the loss or its gradient is not finite at step 9 (epoch 1); "
    assert line.startswith(start)
    assert "the checkpoint of step 6 is kept" in line
    assert "weights.learning_rate (now 0.025)" in line
    assert len(records(place)) == 1
    assert not (place / "summary.json").exists()


def test_the_paper_protocol_is_an_explicit_choice(quick, run, tmp_path, capsys):
    accuracies = iter([0.5, 0.25, 0.75, 0.25, 0.25, 0.25])  # held out, test, ...

    def score(logits, labels):
        return evaluation.Scores(len(labels), 0, next(accuracies), 1.0, 1.0)

    quick.setattr(evaluation, "score", score)
    place = tmp_path / "run"
    assert run(place, "--evaluation.headline", "best_on_test") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["headline"], summary["accuracy"]) == ("best_on_test", 0.25)
    # the first of equals
    assert summary["best_on_test_epoch"] == 0
    assert summary["held_out_selected_epoch"] == 1
    spec = aj.load_model(str(place / "model_selected")).spec
    assert spec.provenance["epoch"] == 0


def test_without_held_out_images_only_the_last_epoch_is_kept(
    quick, run, tmp_path, capsys
):
    argv = ["--data.held-out-fraction", "0", "--evaluation.every", "2"]
    # as many images to train on, and per test batch, as in the other runs
    argv += ["--data.num-examples", "99", "--evaluation.batch-size", "11"]
    assert run(tmp_path / "run", *argv, "--evaluation.first-epoch", "1") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["held_out_selected_accuracy"] is None
    assert not (tmp_path / "run" / "model_selected").exists()
    tested = ["test/accuracy" in record for record in records(tmp_path / "run")]
    assert tested == [False, True, True]
