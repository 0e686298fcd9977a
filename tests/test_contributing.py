"""What CONTRIBUTING shows is what the files say."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST_METHOD = 150


def shown_diff() -> dict[str, list[str]]:
    """Return the added lines of the smallest method, by file."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    block = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)[0]
    parts: dict[str, list[str]] = {}
    for line in block.splitlines():
        if line.startswith("+++ "):
            parts[line.removeprefix("+++ ")] = []
        elif line.startswith("+"):
            next(reversed(parts.values())).append(line[1:])
    return parts


def test_adding_a_method_takes_few_lines():
    parts = shown_diff()
    count = sum(map(len, parts.values()))
    assert 0 < count < LARGEST_METHOD
    assert f"{count} lines" in (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rooms = {Path(name).parts[0] for name in parts}
    assert rooms == {"adarts_jax", "configs", "tests"}


def test_the_shown_lines_are_those_of_the_files():
    for name, added in shown_diff().items():
        lines = (ROOT / name).read_text("utf-8").splitlines()
        assert [line for line in added if line not in lines] == [], name
        if name.startswith(("adarts_jax/edges", "configs")):  # files of its own
            assert added == lines, name
