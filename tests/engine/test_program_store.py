"""Compiled programs are found again without tracing, and never for another function."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarts_jax.config import SearchConfig
from adarts_jax.engine import (
    compilation,
    compilation_cache,
    fingerprint,
    program_store,
    retrain_program,
    retrain_setup,
    search_problem,
    search_program,
    search_setup,
)
from adarts_jax.engine.chain import Chain
from adarts_jax.engine.fingerprint import NoFingerprintError
from adarts_jax.engine.search_problem import make_problem
from adarts_jax.methods import METHODS
from adarts_jax.nn.boundary import boundary
from adarts_jax.retrain_config import RetrainConfig

X = jax.ShapeDtypeStruct((3,), jnp.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Keep programs in an empty folder."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    used = compilation_cache.use_compilation_cache(str(tmp_path / "cache"))
    yield used / "programs"
    jax.config.update("jax_compilation_cache_dir", before)


def scale(x, *, factor):
    traced.append(factor)
    return {"product": factor * x, "sum": x.sum()}


traced = []


@pytest.fixture(autouse=True)
def begin(monkeypatch):
    """Trace nothing yet; be a program in a file (a process of pytest-xdist is none)."""
    traced.clear()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)


def compile_scaling(factor, **options):
    function = functools.partial(scale, factor=factor)
    return compilation.compile_ahead(function, X, **options)


def test_a_kept_program_is_found_without_tracing(folder):
    first = compile_scaling(2.0)
    second = compile_scaling(2.0)
    assert traced == [2.0]
    assert len([*folder.iterdir()]) == 1
    for program in (first, second):
        assert program.call(jnp.arange(3.0))["product"].tolist() == [0, 2, 4]
    assert second.out_info == first.out_info
    assert second.memory_bytes == first.memory_bytes > 0
    assert second.stages["trace"] == second.stages["lower"] == (0, 0)


def test_whatever_is_built_in_makes_another_program(folder):
    compile_scaling(2.0)
    assert compile_scaling(3.0).call(jnp.ones(3))["product"].tolist() == [3, 3, 3]
    compile_scaling(jnp.float32(2))
    compile_scaling(2.0, donate_argnums=(0,))
    compilation.compile_quickly(functools.partial(scale, factor=2.0), X)
    compilation.compile_ahead(
        functools.partial(scale, factor=2.0), jax.ShapeDtypeStruct((4,), jnp.float32)
    )
    with jax.default_matmul_precision("highest"):
        compile_scaling(2.0)
    assert len(traced) == 7
    assert len([*folder.iterdir()]) == 7


def test_parts_are_kept_too(folder):
    def cell(x):
        return boundary(jnp.sin(jnp.cos(boundary(x))) * 2)

    def function(x):
        traced.append(1)
        return cell(cell(cell(x)) + 1) + 2, x

    first, second = (compilation.compile_ahead(function, X) for _ in range(2))
    assert len(traced) == 1
    assert isinstance(first.call, Chain)
    assert isinstance(second.call, Chain)
    x = jnp.arange(3.0)
    for one, other in zip(first.call(x), second.call(x), strict=True):
        np.testing.assert_array_equal(one, other)
    assert second.call.cost_analysis() == first.call.cost_analysis()


def test_shapes_are_told_without_a_program(folder):
    function = functools.partial(scale, factor=2.0)
    shapes = compilation.out_info(function, X)
    assert shapes["product"].shape == (3,)
    compilation.compile_quickly(function, X)
    traced.clear()
    assert compilation.out_info(function, X) == shapes
    assert traced == []


@pytest.mark.parametrize("content", [b"", b"no program", b"\x80\x04N."])
def test_a_damaged_program_is_compiled_anew(folder, content, caplog):
    compile_scaling(2.0)
    (file,) = folder.iterdir()
    good = file.read_bytes()
    file.write_bytes(content)
    assert compile_scaling(2.0).call(jnp.ones(3))["sum"] == 3
    assert "compiled anew" in caplog.text
    assert len(traced) == 2
    assert len(file.read_bytes()) > len(good) / 2


def test_nothing_is_read_where_others_may_write(folder, caplog):
    compile_scaling(2.0)
    folder.chmod(0o777)
    compile_scaling(2.0)
    assert len(traced) == 2
    folder.chmod(0o700)
    folder.parent.chmod(0o770)
    compile_scaling(2.0)
    assert len(traced) == 3


def test_the_oldest_programs_go(folder, monkeypatch):
    monkeypatch.setattr(program_store, "MOST_ENTRIES", 2)
    compile_scaling(1.0)
    (oldest,) = folder.iterdir()
    os.utime(oldest, (1, 1))
    compile_scaling(2.0)
    compile_scaling(3.0)
    assert len([*folder.iterdir()]) == 2
    assert not oldest.exists()


def test_without_a_cache_nothing_is_kept(folder):
    compilation_cache.use_compilation_cache("off")
    compile_scaling(2.0)
    compile_scaling(2.0)
    assert len(traced) == 2
    assert not folder.exists()


def test_unknown_content_has_no_fingerprint():
    for value in (SimpleNamespace(a=1), object(), {1}):
        with pytest.raises(NoFingerprintError):
            fingerprint.fingerprint(functools.partial(scale, factor=value))

    def endless():
        return endless

    with pytest.raises(NoFingerprintError, match="itself"):
        fingerprint.fingerprint(endless)


def test_a_module_may_name_a_file_that_is_not_there(monkeypatch):
    """As ``torch.classes`` does."""
    name = fingerprint.fingerprint(1)
    monkeypatch.setitem(sys.modules, "strange", SimpleNamespace(__file__="_strange.py"))
    assert fingerprint.fingerprint(1) == name


def test_functions_differ_by_what_they_hold():
    def make(number):
        return lambda x: number * x

    names = [
        fingerprint.fingerprint(value)
        for value in (
            make(1),
            make(2),
            lambda x: x,
            lambda x: x + 1,
            np.arange(3),
            np.arange(3.0),
            jax.random.key(1),
            jax.random.key(2),
            {"a": 1},
            {"b": 1},
            (1, 2),
            ((1,), 2),
            jnp.float32,
            jax.jit(make(1)),
        )
    ]
    assert len({*names}) == len(names)
    assert fingerprint.fingerprint(make(1)) == names[0]


def test_one_of_several_devices_runs_a_kept_program(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import sys, jax, jax.numpy as jnp\n"
        "from adarts_jax.engine import compilation, compilation_cache\n"
        "compilation_cache.use_compilation_cache(sys.argv[1])\n"
        "traced = []\n"
        "def f(x):\n"
        "    traced.append(1)\n"
        "    return 2 * x\n"
        "double = compilation.compile_ahead(f, jnp.ones(3)).call(jnp.arange(3.0))\n"
        "print(jax.device_count(), len(traced), double.tolist())\n"
    )
    root = Path(__file__).resolve().parents[2]
    flag = "--xla_force_host_platform_device_count=4"
    environ = os.environ | {"PYTHONPATH": str(root), "XLA_FLAGS": flag}
    said = [
        subprocess.run(
            [sys.executable, script, tmp_path / "cache"],
            env=environ,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for _ in range(2)
    ]
    assert said == ["4 1 [0.0, 2.0, 4.0]", "4 0 [0.0, 2.0, 4.0]"]


def test_a_changed_source_file_changes_all(tmp_path):
    """As it does when the package is edited or updated."""
    module = tmp_path / "mine.py"
    script = "import mine; from adarts_jax.engine import fingerprint as f; "
    script += "print(f.fingerprint(mine.g))"
    main = tmp_path / "main.py"
    main.write_text(script)
    root = Path(__file__).resolve().parents[2]

    def ask(content):
        module.write_text(content)
        path = f"{root}{os.pathsep}{tmp_path}"
        return subprocess.run(
            [sys.executable, main],
            env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    one = ask("def f(): return 1\ndef g(): return f()\n")
    assert one == ask("def f(): return 1\ndef g(): return f()\n")
    assert one != ask("def f(): return 2\ndef g(): return f()\n")


def name_of_search(tmp_path, **changes):
    """Return what the programs of a search are kept under."""
    config = SearchConfig(**changes)
    start = search_setup.prepare(config, tmp_path, resume=False, overwrite=True)
    problem = make_problem(config, start)
    updates = search_problem.make_updates(problem)
    return fingerprint.fingerprint(search_program.make_init(problem), updates, problem)


@pytest.mark.parametrize("method", METHODS)
def test_every_search_can_be_recognised(method, tmp_path):
    one = name_of_search(tmp_path, method=method)
    # The seed and the length are told when a program is called.
    drawn = METHODS[method].draws({})
    assert (one == name_of_search(tmp_path, method=method, seed=5)) is not drawn
    assert one == name_of_search(tmp_path, method=method, epochs=3, warmup_epochs=1)
    assert one != name_of_search(tmp_path, method=method, batch_size=8)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": {"momentum": 0.5}},
        {"weights": {"gradient_clip": 1.0}},
        {"architecture": {"betas": (0.1, 0.9)}},
        {"architecture": {"order": "second"}},
        {"architecture": {"order": "second", "hessian": "exact"}},
        {"network": {"init_channels": 16}},
        {"data": {"flip": True}},
        {"data": {"num_examples": 100}},  # other mean and deviation of pixels
    ],
)
def test_what_a_config_changes_is_recognised(changes, tmp_path):
    common = {"method": "darts"}
    assert name_of_search(tmp_path, **common) != name_of_search(
        tmp_path, **common, **changes
    )


def test_every_training_can_be_recognised(tmp_path):
    def name(**changes):
        config = RetrainConfig(genotype="alpha_adarts", **changes)
        config = retrain_setup.resolve_genotype(config)
        start = retrain_setup.prepare(config, tmp_path, resume=False, overwrite=True)
        problem = retrain_program.make_problem(config, start)
        return fingerprint.fingerprint(
            retrain_program.make_init(problem), problem.update, problem.batching
        )

    assert name() == name(seed=3, epochs=7)
    assert name() != name(network={"drop_path_rate": 0.2})
    assert name() != name(weights={"auxiliary_weight": 0.1})


def test_programs_are_kept_in_one_place_only(folder):
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        compilation.compile_ahead(functools.partial(scale, factor=2.0), X)
        assert getattr(jax.config, name) == 0
    finally:
        jax.config.update(name, before)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert len(list(folder.iterdir())) == 1


USES_JAX_CACHE = """
import sys

import jax
import jax.numpy as jnp

from adarts_jax.engine import compilation, compilation_cache

used = compilation_cache.use_compilation_cache(sys.argv[1])


def scale(x):
    for i in range(4):
        x = jnp.tanh(x @ x) + i * x
    return x, (x[1:] + x[:-1]).sum(0)


x = jnp.ones((16, 16))
if sys.argv[2] == "by JAX":
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.jit(scale).lower(x).compile(dict(compilation._FOR_MANY_CALLS))
    assert list(used.glob("jit_scale*"))
else:
    print(compilation.compile_ahead(scale, x).call(x)[1][0])
"""


def test_a_program_that_jax_kept_is_not_kept_again_without_its_code(tmp_path):
    """As after an edit of a source file that leaves the program as it is."""
    file = tmp_path / "program.py"
    file.write_text(USES_JAX_CACHE)

    def start(way):
        command = [sys.executable, str(file), str(tmp_path / "cache"), way]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    start("by JAX")
    first, second = start("here"), start("here")
    assert first == second
    assert first
