"""Run directory: nothing is lost, two processes never share one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adarts_jax.engine import files, run_directory
from adarts_jax.engine.run_directory import (
    RunDirectory,
    check_config,
    check_place,
    choose_place,
    claim,
)
from adarts_jax.errors import UserError


def check(place, *, resume=False, overwrite=False):
    check_place(place, resume=resume, overwrite=overwrite)


def make_run(place):
    with claim(place) as run:
        files.write_json(run.config, {"a": 1})
        run.checkpoints.mkdir()
        (run.checkpoints / "5").mkdir()
        run.metrics.write_text("{}\n")
        (place / "notes.txt").write_text("mine")
    return place


def test_a_new_directory_is_fine_and_made_with_its_parents(tmp_path):
    place = tmp_path / "runs" / "first"
    check(place)
    with claim(place) as run:
        assert run.path == place
        assert place.is_dir()
    assert run.epoch_genotype(7).name == "epoch_007.json"


def test_an_existing_directory_needs_a_word(tmp_path):
    place = make_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"exists; use --resume .* --overwrite"):
        check(place)
    check(place, resume=True)
    check(place, overwrite=True)
    with pytest.raises(UserError, match="exclude each other"):
        check(place, resume=True, overwrite=True)


def test_resume_needs_something_to_resume(tmp_path):
    with pytest.raises(UserError, match=r"no run in .*missing'"):
        check(tmp_path / "missing", resume=True)
    place = make_run(tmp_path / "run")
    (place / "checkpoints" / "5").rmdir()
    check(place, resume=True)  # it starts anew
    (place / "config.json").unlink()
    with pytest.raises(UserError, match=r"no run in .*run'"):
        check(place, resume=True)


def test_what_a_run_leaves_that_never_began_is_no_run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".config.json.7.tmp").write_text("{")
    check(tmp_path)
    with claim(tmp_path):
        assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoints"]
    (tmp_path / "checkpoints" / "5").mkdir()
    with pytest.raises(UserError, match=r"exists; use --resume"):
        check(tmp_path)


def test_overwrite_deletes_the_run_and_nothing_else(tmp_path):
    place = make_run(tmp_path / "run")
    with claim(place, overwrite=True):
        left = sorted(entry.name for entry in place.iterdir())
    assert left == ["notes.txt"]


def test_overwrite_refuses_what_is_no_run(tmp_path):
    (tmp_path / "photo.jpg").write_text("precious")
    with pytest.raises(
        UserError, match=r"is no run directory \(it holds 'photo.jpg'\)"
    ):
        check(tmp_path, overwrite=True)
    with pytest.raises(UserError, match=r"exists; use --resume"):
        check(tmp_path)
    file = tmp_path / "photo.jpg"
    with pytest.raises(UserError, match="is a file"):
        check(file, overwrite=True)


def test_overwrite_does_not_follow_links(tmp_path):
    place = make_run(tmp_path / "run")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    (place / "cells").symlink_to(elsewhere)
    with claim(place, overwrite=True):
        pass
    assert (elsewhere / "precious").exists()
    assert not (place / "cells").exists()


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot make directory"),
        claim(tmp_path / "file" / "run"),
    ):
        pass


def test_only_one_process_at_a_time(tmp_path):
    place = tmp_path / "run"
    code = (
        "import sys; from pathlib import Path\n"
        "from adarts_jax.engine.run_directory import claim\n"
        f"with claim(Path({str(place)!r})): pass\n"
    )
    second = [sys.executable, "-c", code]
    root = Path(__file__).resolve().parents[2]
    with claim(place):
        done = subprocess.run(second, cwd=root, capture_output=True, text=True)
        assert "another process is running in" in done.stderr
        before = sorted(place.iterdir())
    assert sorted(place.iterdir()) == before  # no lock file stays
    done = subprocess.run(second, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_lock_ends_with_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), claim(tmp_path / "run"):
        1 / 0  # noqa: B018
    with claim(tmp_path / "run"):
        pass


def test_another_config_is_shown_field_by_field(tmp_path):
    run = RunDirectory(tmp_path)
    saved = {"epochs": 3, "network": {"init_channels": 8, "num_cells": 3}, "old": 1}
    run.config.write_text(json.dumps(saved))
    check_config(run, saved)
    asked = {"epochs": 4, "network": {"init_channels": 16, "num_cells": 3}}
    with pytest.raises(UserError) as caught:
        check_config(run, asked)
    message = str(caught.value)
    assert "epochs: 3 -> 4" in message
    assert "network.init_channels: 8 -> 16" in message
    assert "old: 1 -> absent" in message
    assert "num_cells" not in message
    check_config(run, saved | {"epochs": 4}, may_differ=["epochs"])


def test_a_stranger_config_is_not_listed_in_full(tmp_path):
    run = RunDirectory(tmp_path)
    run.config.write_text("{}")
    with pytest.raises(UserError, match=r"f5: absent -> 5, 14 more\); leave"):
        check_config(run, {f"f{i}": i for i in range(20)})


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*config.json"):
        check_config(RunDirectory(tmp_path), {})


def test_default_place_has_date_and_recipe():
    assert run_directory.default_place("mine").parts[0] == "runs"
    assert run_directory.default_place("mine").name.endswith("-mine")
    assert run_directory.default_place("").name.endswith("-digits")


def test_the_place_is_what_was_asked_for_or_the_default(tmp_path):
    assert choose_place(str(tmp_path), "mine", resume=True) == tmp_path
    assert choose_place(None, "mine", resume=False).name.endswith("-mine")
    with pytest.raises(UserError, match="--resume needs --out"):
        choose_place(None, "mine", resume=True)


def test_files_are_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})

    def fail(partial):
        partial.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.replace(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})


def lose(place, error):
    place.rename(place.with_name("moved"))
    raise error


@pytest.mark.parametrize("error", [OSError(5, "broken"), ValueError("Orbax: gone")])
def test_what_a_lost_directory_breaks_is_told_as_that(tmp_path, error):
    place = tmp_path / "run"
    told = "was deleted or moved while running"
    with pytest.raises(UserError, match=told), claim(place):
        lose(place, error)


def test_other_mistakes_pass_the_claim(tmp_path):
    with pytest.raises(ValueError, match="ours"), claim(tmp_path / "run"):
        raise ValueError("ours")
    told = "broken; what was saved is intact"
    with pytest.raises(UserError, match=told), claim(tmp_path / "run"):
        raise OSError(5, "broken")
