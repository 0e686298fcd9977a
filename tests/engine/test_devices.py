"""Compiling, waiting, the cache of compiled programs, the manifest."""

import json
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from adarts_jax.engine import compilation, compilation_cache, devices, manifest
from adarts_jax.errors import UserError


@pytest.fixture
def jax_cache(monkeypatch):
    """Give back the setting of the session afterwards."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("ADARTS_CACHE", raising=False)
    yield monkeypatch
    jax.config.update("jax_compilation_cache_dir", before)


def test_a_program_is_compiled_once_and_measured():
    traced = []

    def double(x):
        traced.append(1)
        return 2 * x

    program = compilation.compile_ahead(
        double, jax.ShapeDtypeStruct((1000,), jnp.float32)
    )
    assert program.call(jnp.ones(1000))[0] == 2
    program.call(jnp.ones(1000))
    assert len(traced) == 1
    assert program.compile_seconds > 0
    assert [*program.stages] == ["trace", "lower", "compile"]
    walls = [wall for wall, _ in program.stages.values()]
    assert min(walls) > 0
    assert sum(walls) == program.compile_seconds
    assert program.memory_bytes >= 8000


def test_waiting_ends_when_arrays_are_there():
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 300, lambda _, y: y @ y / 200, x))
    tree = {"a": slow(jnp.ones((200, 200))), "b": None}
    devices.wait_until_ready(tree)
    assert tree["a"].is_ready()


def test_the_cache_is_private_and_the_users_own(jax_cache, tmp_path):
    jax_cache.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compilation_cache.use_compilation_cache()
    root = tmp_path / "adarts_jax" / "xla"
    assert folder is not None
    assert folder.parent == root
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert folder.stat().st_mode & 0o777 == root.stat().st_mode & 0o777 == 0o700


def test_the_cache_is_where_it_is_asked_to_be(jax_cache, tmp_path):
    jax_cache.setenv("ADARTS_CACHE", str(tmp_path / "environment"))
    assert compilation_cache.use_compilation_cache().parent == tmp_path / "environment"
    option = compilation_cache.use_compilation_cache(str(tmp_path / "option"))
    assert option.parent == tmp_path / "option"
    assert compilation_cache.use_compilation_cache("off") is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_cache_chosen_for_jax_stays(jax_cache, tmp_path):
    jax_cache.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    assert compilation_cache.use_compilation_cache() == tmp_path
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)


@pytest.mark.parametrize("problem", ["open to others", "a file"])
def test_a_cache_that_will_not_do_is_left_alone(jax_cache, tmp_path, problem, caplog):
    place = tmp_path / "cache"
    if problem == "a file":
        place.write_text("")
    else:
        place.mkdir()
        place.chmod(0o777)
    before = jax.config.jax_compilation_cache_dir
    with caplog.at_level(logging.WARNING, logger="adarts_jax"):
        assert compilation_cache.use_compilation_cache(str(place)) is None
    assert "compiled programs are not kept" in caplog.text
    assert jax.config.jax_compilation_cache_dir == before


def session(path, *, command="python -m adarts_jax.search", first_step=0):
    manifest.add_session(
        path,
        about={"seed": 2, "data": {"fingerprint": "f"}},
        command=command,
        first_step=first_step,
        details={"compile_seconds": 1.5},
    )


def test_the_manifest_says_what_a_result_depends_on(tmp_path):
    path = tmp_path / "manifest.json"
    session(path)
    session(path, first_step=7)
    found = json.loads(path.read_text())
    assert found["format"] == "adarts-manifest/1"
    assert (found["seed"], found["data"]) == (2, {"fingerprint": "f"})
    assert [s["first_step"] for s in found["sessions"]] == [0, 7]
    for entry in found["sessions"]:
        assert entry["packages"]["jax"] == jax.__version__
        assert entry["device"]["platform"] == jax.default_backend()
        assert entry["compile_seconds"] == 1.5


def test_the_manifest_names_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    path = tmp_path / "manifest.json"
    session(path, command="run --data /home/alice/d --out /scratch/alice/x --a malice")
    text = path.read_text()
    assert "run --data ~/d --out /scratch/USER/x --a malice" in text


def test_a_damaged_manifest_is_named(tmp_path):
    path = tmp_path / "manifest.json"
    for text in ("{", "[]", '{"format": "adarts-manifest/1", "sessions": 3}'):
        path.write_text(text)
        with pytest.raises(UserError, match="delete it to continue"):
            manifest.read(path)
    assert manifest.read(Path("missing.json")) is None


def test_a_manifest_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text('{"format": "adarts-manifest/2", "sessions": []}')
    with pytest.raises(UserError, match="written by a newer adarts-jax; upgrade"):
        manifest.read(path)
