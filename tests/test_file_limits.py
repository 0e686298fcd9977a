"""Size limits of style.md section 3: short files, short functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_HOST_LOOP_LINES = 80

# Host loops tell a story that gets worse when cut up; each one is listed by hand.
HOST_LOOPS = {
    "adarts_jax/engine/search_loop.py::search",
    "adarts_jax/engine/retrain_loop.py::retrain",
}

FILES = sorted(p for top in ("adarts_jax", "train") for p in (ROOT / top).rglob("*.py"))


def function_lengths(source: str) -> Iterator[tuple[str, int]]:
    """Yield (name, lines) of every function; its docstring does not count."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None and first.end_lineno is not None:
                lines -= first.end_lineno - first.lineno + 1
            yield node.name, lines


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_are_short(path):
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= MAX_FILE_LINES
    too_long = {}
    for name, lines in function_lengths(source):
        listed = f"{relative(path)}::{name}" in HOST_LOOPS
        if lines > (MAX_HOST_LOOP_LINES if listed else MAX_FUNCTION_LINES):
            too_long[name] = lines
    assert too_long == {}


def test_host_loops_exist():
    known = {
        f"{relative(path)}::{name}"
        for path in FILES
        for name, _ in function_lengths(path.read_text("utf-8"))
    }
    assert known >= HOST_LOOPS, "remove functions that are gone from HOST_LOOPS"


def test_length_leaves_out_the_docstring():
    source = 'def f():\n  """One.\n\n  Two.\n  """\n  a = 1\n  return a\n'
    assert list(function_lengths(source)) == [("f", 3)]
