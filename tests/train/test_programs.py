"""The programs in train/ are thin, say what they can do, and load nothing heavy."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adarts_jax.cli.fields import leaves, option
from adarts_jax.retrain_config import RetrainConfig, SelectConfig

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "train").glob("*.py"))
MAX_LINES = 60
ALLOWED = {"adarts_jax", "jax", *sys.stdlib_module_names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_programs_parse_call_and_print(path):
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    introduction = (ast.get_docstring(tree) or "").splitlines()
    assert len(source.splitlines()) - len(introduction) <= MAX_LINES
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= ALLOWED


@pytest.mark.parametrize(
    ("name", "config", "arguments"),
    [("retrain", RetrainConfig, ()), ("select", SelectConfig, ("genotypes",))],
)
def test_help_lists_every_option(name, config, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"train.{name}").main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m train.{name}" in text
    for field, _ in leaves(config):
        assert (field if field in arguments else option(field)) in text


def test_starting_to_train_loads_nothing_heavy():
    heavy = ["torch", "matplotlib", "tensorflow", "sklearn"]
    code = f"import sys, train.retrain; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
