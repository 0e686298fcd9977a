"""The flag of ``deterministic = true``: known ones only, the user's own kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adarts_jax.engine import determinism
from adarts_jax.engine.determinism import NAME, require_determinism
from adarts_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FLAG = f"{NAME}=true"


def require(environ, *, running=None, knows=True):
    require_determinism(environ, running=lambda: running, knows=lambda flag: knows)
    return environ


def test_the_flag_is_added_behind_those_of_the_user_once():
    environ = require({"XLA_FLAGS": "--xla_dump_to=/x  --xla_gpu_autotune_level=4"})
    wanted = f"--xla_dump_to=/x --xla_gpu_autotune_level=4 {FLAG}"
    assert environ == {"XLA_FLAGS": wanted}
    assert require(environ)["XLA_FLAGS"] == wanted
    assert require(environ, running="gpu")["XLA_FLAGS"] == wanted
    assert require({}) == {"XLA_FLAGS": FLAG}


def test_a_flag_that_xla_does_not_know_is_never_set(caplog):
    assert require({"XLA_FLAGS": "--a"}, knows=False) == {"XLA_FLAGS": "--a"}
    assert f"does not know {FLAG}" in caplog.text


@pytest.mark.parametrize("flag", [NAME, FLAG, f"{NAME}=1", f"{NAME}=True"])
def test_the_user_may_have_set_it(flag):
    assert require({"XLA_FLAGS": flag}, running="gpu") == {"XLA_FLAGS": flag}


@pytest.mark.parametrize("value", ["false", "0", "False"])
@pytest.mark.parametrize("running", [None, "cpu", "gpu"])
def test_the_contrary_is_an_error(value, running):
    environ = {"XLA_FLAGS": f"--a {FLAG} {NAME}={value}"}
    with pytest.raises(UserError, match=f"XLA_FLAGS says {NAME}={value}; take"):
        require(environ, running=running)


def test_a_gpu_in_use_is_too_late():
    environ = {"XLA_FLAGS": "--a"}
    with pytest.raises(UserError, match="has started its gpu already; begin a new"):
        require(environ, running="gpu")
    assert environ == {"XLA_FLAGS": "--a"}


def test_a_cpu_needs_nothing():
    assert require({}, running="cpu") == require({}, running="tpu") == {}
    assert require({"JAX_PLATFORMS": "cpu"}) == {"JAX_PLATFORMS": "cpu"}


def test_whether_a_flag_is_known_is_asked_of_the_installed_xla():
    assert determinism.is_known(FLAG)
    assert not determinism.is_known("--xla_gpu_determinstic_ops=true")


def test_the_search_sets_it_before_jax_starts(tmp_path):
    """As on a machine with a GPU: no platform is chosen."""
    code = (
        "import os; from adarts_jax.search import main; "
        "status = main(['--method', 'random', '--deterministic', '--out', 'run']); "
        "print(status, os.environ['XLA_FLAGS'])"
    )
    environ = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environ | {"PYTHONPATH": str(ROOT), "ADARTS_CACHE": "off"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith(f" {FLAG}\n")
    assert done.stdout.splitlines()[-1].startswith("0 ")
