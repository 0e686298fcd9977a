"""Full and read-only disks, things that vanish, clocks, neighbours, little memory."""

import resource
import shutil
import time
from functools import partial

import jax
import numpy as np
import pytest
from fault_tools import (
    Process,
    all_files,
    read_json,
    records,
    run,
    same,
    signal_at,
    small_disk,
    when,
)

from adarts_jax.engine.console import Console
from adarts_jax.engine.retrain_program import RetrainProgram
from adarts_jax.engine.run_directory import claim
from adarts_jax.engine.search_program import SearchProgram


def error_of(capsys):
    """Return the only error line, which is the last one."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    *others, last = err.splitlines()
    assert last.startswith("error: ")
    assert not any(line.startswith("error: ") for line in others)
    return last


@pytest.fixture
def disk(tmp_path):
    """Return a disk of 8 MB and what remounts it."""
    with small_disk(tmp_path / "disk", 8 << 20) as remount:
        if remount is None:
            pytest.skip("only root can mount a small disk")
        yield tmp_path / "disk", remount


def fill(folder):
    """Leave no byte on the disk of a folder."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


@pytest.mark.parametrize(("kind", "step"), [("fake", 2), ("retrain", 5), ("fake", 12)])
def test_a_full_disk(quick, wholes, disk, capsys, kind, step):
    """Full from a step on: the first save, one in the middle, the result."""
    folder, _ = disk
    place = folder / "run"
    with quick.context() as patch:
        when(patch, step, lambda: fill(folder))
        assert run(kind, place) == 2
    line = error_of(capsys)
    assert "No space left on device; what was saved is intact: make room" in line
    assert f"continue with --resume --out {place}" in line
    (folder / "filler").unlink()
    # A thread of Orbax that the failed save left may still move files, as it could not
    # if this were, as with users, another process.
    time.sleep(2)
    assert run(kind, place, "--resume") == 0
    assert same(place, wholes(kind))


def test_a_disk_that_is_full_from_the_start(quick, wholes, disk, capsys):
    folder, _ = disk
    kind = "fake"
    fill(folder)
    assert run(kind, folder / "run") == 2
    assert "No space left on device" in error_of(capsys)
    (folder / "filler").unlink()
    # Nothing had begun, so that there is nothing to resume or overwrite.
    assert run(kind, folder / "run") == 0
    assert same(folder / "run", wholes(kind))


def test_a_disk_that_becomes_read_only(quick, wholes, disk, capsys):
    folder, remount = disk
    kind = "retrain"
    with quick.context() as patch:
        when(patch, 6, lambda: remount("ro"))
        assert run(kind, folder / "run") == 2
    line = error_of(capsys)
    assert "Read-only file system; what was saved is intact: make it writable" in line
    assert run(kind, folder / "other") == 2
    assert "cannot make directory" in error_of(capsys)
    assert run(kind, folder / "run", "--resume") == 2
    assert "Read-only file system" in error_of(capsys)
    remount("rw")
    assert run(kind, folder / "run", "--resume") == 0
    assert same(folder / "run", wholes(kind))


def delete(place):
    """Delete a folder, whoever is writing in it at the same time."""
    while place.exists():
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize(("kind", "step"), [("fake", 6), ("fake", 12), ("retrain", 12)])
def test_a_directory_that_is_deleted_while_running(quick, tmp_path, capsys, kind, step):
    place = tmp_path / "run"
    with quick.context() as patch:
        when(patch, step, partial(delete, place))
        assert run(kind, place) == 2
    assert "was deleted or moved while running" in error_of(capsys)
    # A checkpoint under way may have made its folder again, and nothing else.
    assert [path.name for path in place.glob("*")] in ([], ["checkpoints"])


def test_a_directory_that_is_moved_may_come_back(quick, wholes, tmp_path, capsys):
    place = tmp_path / "run"

    def move_and_replace():
        place.rename(tmp_path / "moved")
        place.mkdir()
        (place / "precious").write_text("of another process")

    with quick.context() as patch:
        when(patch, 6, move_and_replace)
        assert run("fake", place) == 2
    assert "was deleted or moved while running" in error_of(capsys)
    assert (place / "precious").is_file()
    left = {path.name for path in place.iterdir()}
    assert left <= {"precious", "checkpoints"}
    assert run("fake", tmp_path / "moved", "--resume") == 0
    assert same(tmp_path / "moved", wholes("fake"))


def test_a_clock_that_jumps_back(quick, wholes, tmp_path):
    now, place, kind = time.time, tmp_path / "run", "fake"
    with quick.context() as patch:
        jump = partial(patch.setattr, time, "time", lambda: now() - 86_400)
        when(patch, 6, jump)
        assert run(kind, place) == 0
    assert same(place, wholes(kind))
    assert all(0 < r["time/step_seconds"] < 60 for r in records(place))


def test_a_data_file_that_vanishes(quick, tmp_path, capsys):
    """While running nobody needs it; to resume, it must come back."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (128, 8, 8, 1), np.uint8)
    file, kept = tmp_path / "data.npz", tmp_path / "kept.npz"
    np.savez(kept, images=images, labels=np.arange(128) % 10)
    argv = ["--data.source", "npz", "--data.data-dir", str(file)]
    whole, place = tmp_path / "whole", tmp_path / "run"
    shutil.copy(kept, file)
    with quick.context() as patch:
        when(patch, 2, file.unlink)
        assert run("fake", whole, *argv) == 0
    shutil.copy(kept, file)
    with quick.context() as patch:
        signal_at(patch, 6)
        assert run("fake", place, *argv) == 143
    file.unlink()
    before = {path: path.read_bytes() for path in all_files(place)}
    capsys.readouterr()
    assert run("fake", place, *argv, "--resume") == 2
    assert f"{str(file)!r} is not an existing" in error_of(capsys)
    assert before == {path: path.read_bytes() for path in all_files(place)}
    shutil.copy(kept, file)
    assert run("fake", place, *argv, "--resume") == 0
    assert same(place, whole)


@pytest.mark.parametrize(
    ("kind", "flag"), [("fake", "--resume"), ("retrain", "--overwrite")]
)
def test_a_second_process_is_refused(quick, wholes, tmp_path, capsys, kind, flag):
    """That a kill takes the lock along is what every kill test shows."""
    place = tmp_path / "run"
    shutil.copytree(wholes(kind), place)
    before = {path: path.read_bytes() for path in all_files(place)}
    with claim(place):
        assert run(kind, place, flag) == 2
    assert f"another process is running in {str(place)!r}" in error_of(capsys)
    assert before == {path: path.read_bytes() for path in all_files(place)}


EXHAUSTED = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out\nof memory")


@pytest.mark.parametrize(
    ("kind", "error", "parts"),
    [
        ("fake", EXHAUSTED, ["batch_size (now 16)", "network.init_channels"]),
        ("fake", MemoryError(), ["batch_size (now 16)", "network.init_channels"]),
        ("retrain", EXHAUSTED, ["network.remat", "network.precision = bfloat16"]),
    ],
    ids=["device", "host", "retrain"],
)
def test_too_little_memory(quick, wholes, tmp_path, capsys, kind, error, parts):
    """In the middle of the run, whose last state then is good."""
    place = tmp_path / "run"
    program = RetrainProgram if kind == "retrain" else SearchProgram
    original = program.advance

    def exhausted(self, data, number, pace):
        if number == 1:
            raise error
        return original(self, data, number, pace)

    with quick.context() as patch:
        patch.setattr(program, "advance", exhausted)
        assert run(kind, place) == 2
    line = error_of(capsys)
    assert line.startswith("error: not enough memory on cpu: make batch_size")
    assert all(part in line for part in parts)
    assert run(kind, place, "--resume") == 0
    assert same(place, wholes(kind))


@pytest.mark.slow
def test_really_too_little_memory(tmp_path):
    """Not even the first state fits into what the system lets the process have."""
    process = Process("retrain", tmp_path / "run", "--network.init-channels", "8192")
    resource.prlimit(process.pid, resource.RLIMIT_AS, (6 << 30, 6 << 30))
    assert process.end() == 2
    assert process.lines[-1].startswith("error: not enough memory on cpu: make batch_")
    assert "init_channels (now 8192)" in process.lines[-1]


def test_nobody_reads_the_progress(quick, wholes, tmp_path):
    """A closed pipe or a full disk behind stderr costs the words, not the run."""

    class Closed:
        def isatty(self):
            return False

        def write(self, text):
            raise BrokenPipeError

        flush = write

    with Console(Closed()) as console:
        console.say("lost")
    place = tmp_path / "run"
    with quick.context() as patch:
        patch.setattr("sys.stderr.write", Closed().write, raising=False)
        assert run("fake", place) == 0
    assert read_json(place / "manifest.json")["sessions"]
    assert same(place, wholes("fake"))
