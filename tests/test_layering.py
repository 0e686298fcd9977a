"""The floors of docs/design.md: imports run downwards, programs are imported by no one.

The two tables below are the whole policy. A new module of adarts_jax needs a line in
FLOORS, a new heavy dependency a line in HEAVY.
"""

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "adarts_jax"

PROGRAM = 7
FLOORS = {
    "errors": -1,  # the cellar: every room may raise UserError
    "space": 0,
    "nn": 1,
    "architecture": 1,
    "discretize": 1,
    "data": 1,
    "edges": 2,
    "networks": 3,
    "methods": 4,
    "torch_weights": 4,
    "torch_reference": 4,
    "model_spec": 4.3,
    "model_directory": 4.6,
    "bilevel": 5,
    "training": 5.5,
    # the sixth floor has steps: the engine reads configs and orders pictures, the
    # command line knows how the engine can end
    "config_rules": 5.5,
    "config_types": 5.5,
    "config": 6,
    "retrain_config": 6.1,
    "model_options": 6.1,
    "report": 6,
    "engine": 6.3,
    "cli": 6.6,
    "search": PROGRAM,
    "convert": PROGRAM,
    "predict": PROGRAM,
    "report.__main__": PROGRAM,
}

# Heavy package -> rooms that may import it at the top of a module. Everywhere else it
# is imported inside the function that needs it, or not at all.
HEAVY = {
    "matplotlib": {"report"},
    "PIL": {"data"},
    "sklearn": {"data"},
    "tensorflow_datasets": {"data"},
    "torch": {"torch_weights", "torch_reference"},
    "tensorflow": set(),
}
SIBLINGS = {"train", "configs", "benchmarks", "colab", "tests"}


def module_name(path: Path) -> str:
    """Return the name inside the package: ``space.topology``, "" for the root."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p): p for p in sorted((ROOT / PACKAGE).rglob("*.py"))}
LIBRARY = sorted(set(MODULES) - {""})


def room(name: str) -> str:
    """Return the row of FLOORS a module belongs to."""
    return name if name in FLOORS else name.partition(".")[0]


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the absolute dotted names an import statement asks for."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: relative import"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_target(dotted: str) -> str | None:
    """Return the module of the package an import reaches, None for others."""
    head, _, rest = dotted.partition(".")
    if head != PACKAGE:
        return None
    while rest and rest not in MODULES:  # the tail names a function or class
        rest = rest.rpartition(".")[0]
    return rest


def module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that run at import: everything outside function bodies."""
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))


def violations(name: str, source: str) -> list[str]:
    """Return what a module of this name and text does against the policy."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        for dotted in imported(node):
            if dotted.partition(".")[0] in SIBLINGS:
                found.append(f"imports {dotted}, which is outside the library")
            target = own_target(dotted)
            if target is not None and (reason := forbidden(name, target)):
                found.append(f"imports {dotted}: {reason}")
    for node in module_level(tree):
        for dotted in imported(node):
            package = dotted.partition(".")[0]
            allowed = HEAVY.get(package)
            if allowed is not None and room(name).partition(".")[0] not in allowed:
                found.append(f"imports {package} at module level")
    return found


def forbidden(name: str, target: str) -> str | None:
    """Return why one module may not import another, None where it may."""
    if target == "":
        return "the public names; import the module that defines the name"
    if FLOORS[room(target)] == PROGRAM:
        return "a program"
    own, other = FLOORS[room(name)], FLOORS[room(target)]
    same_package = name.partition(".")[0] == target.partition(".")[0]
    if other < own or same_package:
        return None
    return f"floor {other} is not below floor {own}"


@pytest.mark.parametrize("name", LIBRARY)
def test_every_module_has_a_floor(name):
    assert room(name) in FLOORS, f"give {PACKAGE}.{name} a floor in FLOORS"


@pytest.mark.parametrize("name", LIBRARY)
def test_imports_run_downwards(name):
    assert violations(name, MODULES[name].read_text("utf-8")) == []


def test_public_names_reach_programs_lazily():
    tree = ast.parse(MODULES[""].read_text("utf-8"))
    targets = {own_target(d) for node in module_level(tree) for d in imported(node)}
    programs = {t for t in targets if t and FLOORS[room(t)] == PROGRAM}
    assert programs == set()


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("nn.layers", "from adarts_jax.edges import full", "floor 2 is not below"),
        ("nn.layers", "def f():\n  import adarts_jax.edges", "floor 2 is not below"),
        ("errors", "from adarts_jax.space import topology", "floor 0 is not below"),
        ("config", "from adarts_jax import cli", "floor 6.6 is not below"),
        ("report.page", "from adarts_jax import config", "floor 6 is not below"),
        ("edges.full", "import adarts_jax", "public names"),
        ("engine.epoch", "from adarts_jax import search", "a program"),
        ("report.page", "from adarts_jax.report import __main__", "a program"),
        ("data.splits", "from train import retrain", "outside the library"),
        (
            "nn.layers",
            "try:\n  import torch\nexcept ImportError: pass",
            "imports torch",
        ),
        ("engine.epoch", "from matplotlib import figure", "imports matplotlib"),
    ],
)
def test_policy_notices(name, source, complaint, monkeypatch):
    known = dict.fromkeys(
        ["edges", "edges.full", "errors", "cli", "config", "search", "report.__main__"]
    )
    monkeypatch.setattr(sys.modules[__name__], "MODULES", MODULES | known)
    assert any(complaint in found for found in violations(name, source))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("report.cell_picture", "from matplotlib.figure import Figure"),
        ("torch_weights.reader", "def read():\n  import torch"),
        ("space.genotype", "from adarts_jax.space import topology"),
        ("space.genotype", "from adarts_jax.errors import UserError"),
        ("architecture", "from adarts_jax.space.topology import num_edges"),
    ],
)
def test_policy_allows(name, source):
    assert violations(name, source) == []


def test_importing_the_library_imports_nothing_heavy():
    installed = [name for name in HEAVY if importlib.util.find_spec(name)]
    code = f"import sys, {PACKAGE}; print([m for m in {installed} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
