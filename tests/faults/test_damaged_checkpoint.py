"""A checkpoint that is damaged gives way to the one before, aloud; the result stays."""

import json
import shutil
import signal
from functools import partial

import fake_search
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fault_tools import (
    DAMAGES,
    Process,
    all_files,
    copy,
    newest,
    read_json,
    run,
    same,
    signal_at,
)

from adarts_jax.engine import pacing
from adarts_jax.engine.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def stopped(compiled_once, tmp_path_factory):
    """Return a search that was stopped at step 6, in the middle of an epoch."""
    place = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_search.install(monkeypatch)
        monkeypatch.setattr(pacing, "CHUNK_SECONDS", 0.0)
        signal_at(monkeypatch, 6)
        assert run("fake", place) == 143
    return place


def tree(value):
    return {"a": jnp.full(3000, value, jnp.float32), "b": jnp.int32(value)}


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_file_is_damaged_no_number_is_wrong(tmp_path, caplog, damage):
    """Every file of the newest of three checkpoints, one after another."""
    with Checkpoints(tmp_path / "whole") as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, tree(step))
    names = [p.relative_to(tmp_path / "whole") for p in all_files(tmp_path / "whole/3")]
    assert len(names) > 5
    for name in names:
        place = copy(tmp_path / "whole", tmp_path / "damaged")
        DAMAGES[damage](place / name)
        caplog.clear()
        with Checkpoints(place) as checkpoints:
            step, found = checkpoints.restore(jax.eval_shape(partial(tree, 0)))
            assert (step, checkpoints.steps()[-1]) in ((3, 3), (2, 2)), name
        jax.tree.map(np.testing.assert_array_equal, found, tree(step))
        is_told = "continuing from step 2" in caplog.text
        assert is_told == (step == 2), name
        shutil.rmtree(place)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_run_goes_on_from_the_one_before(quick, wholes, stopped, tmp_path, damage):
    place = copy(stopped, tmp_path / "run")
    for path in all_files(newest(place) / "state"):
        DAMAGES[damage](path)
    assert run("fake", place, "--resume") == 0
    sessions = read_json(place / "manifest.json")["sessions"]
    assert sessions[-1]["first_step"] == 4
    assert same(place, wholes("fake"))


def test_the_program_says_so(stopped, tmp_path):
    """On stderr, with nothing else that would frighten."""
    place = copy(stopped, tmp_path / "run")
    for path in all_files(newest(place) / "state"):
        path.write_bytes(b"")
    process = Process("fake", place, "--resume")
    process.wait_for("compiling (")
    process.send(signal.SIGKILL)
    process.end()
    told = process.lines
    assert told[0].startswith("run directory")
    assert told[1].startswith("WARNING: checkpoint of step 6 is damaged (")
    assert told[2] == "WARNING: continuing from step 4 instead"
    assert told[3] == "resuming at step 4 of 12"
    assert told[4].startswith("compiling")


def test_none_intact_is_an_error_that_names_the_directory(
    quick, stopped, tmp_path, capsys
):
    place = copy(stopped, tmp_path / "run")
    for path in (place / "checkpoints").glob("*/meta/metadata"):
        path.write_bytes(b"")
    assert run("fake", place, "--resume") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: all 3 checkpoints in ")
    assert str(place / "checkpoints") in line
    assert "--overwrite" in line
    assert len(list((place / "checkpoints").iterdir())) == 3


def rewrite(path, **values):
    path.write_text(json.dumps(read_json(path) | values))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            lambda place: rewrite(
                newest(place) / "meta" / "metadata", format="adarts-checkpoint/2"
            ),
            ["adarts-checkpoint/2", "written by a newer adarts-jax; upgrade"],
        ),
        (
            lambda place: rewrite(
                place / "manifest.json", format="adarts-manifest/2", sessions=3
            ),
            ["adarts-manifest/2", "written by a newer adarts-jax; upgrade"],
        ),
        (
            lambda place: rewrite(place / "splits.json", format="adarts-splits/2"),
            ["adarts-splits/2", "written by a newer adarts-jax; upgrade"],
        ),
    ],
)
def test_a_newer_version_wrote_it(quick, stopped, tmp_path, capsys, change, parts):
    place = copy(stopped, tmp_path / "run")
    # which may have fields that this one does not know
    rewrite(place / "config.json", **({"new": 1} if "manifest" in parts[0] else {}))
    change(place)
    before = {path: path.read_bytes() for path in all_files(place)}
    assert quick_resume(place) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert all(part in error for part in parts)
    changed = {p.name for p in all_files(place) if before.get(p) != p.read_bytes()}
    assert changed <= {"splits.json"}  # which is the same, written again


def quick_resume(place):
    """Resume as users do, with the config of the run."""
    from adarts_jax.search import main

    return main(["--out", str(place), "--resume"])


@pytest.mark.parametrize(
    ("missing", "part"),
    [
        (1, "now there are"),
        (0, "does not fit this run (.state.params['kernel']: "),
    ],
)
def test_another_network_is_shown_with_its_difference(
    quick, stopped, tmp_path, capsys, missing, part
):
    """The config was exchanged, the images with it, and the manifest is gone."""
    place = copy(stopped, tmp_path / "run")
    count = read_json(place / "splits.json")["num_examples"] - missing
    images, labels = np.zeros((count, 4, 4, 1), np.uint8), np.arange(count) % 2
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    config = read_json(place / "config.json")
    config["data"] |= {"source": "npz", "data_dir": str(tmp_path / "images.npz")}
    (place / "config.json").write_text(json.dumps(config))
    (place / "manifest.json").unlink()
    assert quick_resume(place) == 2
    assert part in capsys.readouterr().err.splitlines()[-1]


def test_another_precision_is_shown(quick, wholes, tmp_path, capsys):
    place = copy(wholes("retrain"), tmp_path / "run")
    argv = ["--resume", "--network.precision", "bfloat16"]
    assert run("retrain", place, *argv) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert 'network.precision: "tf32" -> "bfloat16"' in line


def test_stopped_twice_and_damaged_in_between(quick, wholes, tmp_path):
    place, kind = tmp_path / "run", "retrain"
    for step in (6, 7):
        with quick.context() as patch:
            signal_at(patch, step)
            resume = [] if step == 6 else ["--resume"]
            assert run(kind, place, *resume) == 143
        for path in all_files(newest(place) / "state"):
            path.unlink()
    assert run(kind, place, "--resume") == 0
    assert same(place, wholes(kind))
