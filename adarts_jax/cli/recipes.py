"""Recipe files, and what is wrong with their values in one line."""

import json
import os
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from adarts_jax.cli.fields import members, option
from adarts_jax.errors import UserError, did_you_mean, shorten

MAX_BYTES = 100_000  # of a recipe
MAX_PROBLEMS = 5  # that one message tells

_READERS = {".toml": tomllib.loads, ".json": json.loads}


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe: TOML, or JSON such as the ``config.json`` of a run.

    Args:
      path: file ending in ``.toml`` or ``.json``.

    Returns:
      Nested values, not yet validated.

    Raises:
      UserError: no such file, another kind of file, or not valid TOML or JSON.
    """
    shown = repr(str(path))
    if path.suffix not in _READERS:
        raise UserError(f"recipe {shown} must end in .toml or .json")
    text, kind = _read_text(path), path.suffix[1:].upper()
    try:
        values = _READERS[path.suffix](text)
    except ValueError as error:
        raise UserError(
            f"recipe {shown} is not valid {kind}: {shorten(error, 200)}; correct it "
            "there"
        ) from None
    except RecursionError:
        raise UserError(
            f"recipe {shown} is not valid {kind} for us: its lists are nested too "
            "deeply; write two levels, [group] and field = value"
        ) from None
    if not isinstance(values, dict):
        raise UserError(
            f'recipe {shown} holds no table of fields; write {{"field": value}}'
        )
    return values


def _read_text(path: Path) -> str:
    """Return the text of an ordinary file of modest size."""
    shown = repr(str(path))
    # Opening a pipe would wait for ever, reading a device never end.
    if os.path.exists(path) and not os.path.isfile(path):
        what = "a folder" if path.is_dir() else "no ordinary file"
        raise UserError(f"recipe {shown} is {what}; give a .toml or .json file")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UserError(
                f"recipe {shown} has more than {MAX_BYTES} bytes; is it another file?"
            )
        return data.decode("utf-8-sig")  # editors on Windows write a mark first
    except UnicodeDecodeError:
        raise UserError(
            f"recipe {shown} is not UTF-8 text; save it with that encoding"
        ) from None
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        names = [p.name for p in path.parent.glob("*.*")] if is_missing else []
        hint = did_you_mean(path.name, names) or "; give another --config"
        reason = error.strerror or type(error).__name__
        raise UserError(f"cannot read recipe {shown}: {reason}{hint}") from None


def put(values: dict[str, Any], name: str, value: object) -> None:
    """Set the value of a dotted field name.

    What is no group where one is expected stays, for the model to refuse.
    """
    *groups, last = name.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            return
    values[last] = value


def explain(
    error: ValidationError,
    fields: Mapping[str, FieldInfo],
    overridden: AbstractSet[str],
    recipe: Path | None,
) -> UserError:
    """Say in one line what a model refused, and where it came from.

    Args:
      error: what the model found.
      fields: dotted names and descriptions of the fields of the model.
      overridden: fields whose value came from the command line.
      recipe: file of the other values, if any.

    Returns:
      The error to raise.
    """
    source = f" in {str(recipe)!r}" if recipe else ""
    problems: dict[str, list[str]] = {}
    all_found = _without_echoes(error.errors(include_url=False))
    for found in all_found[:MAX_PROBLEMS]:
        name = _field_name(found["loc"], fields)
        rule = found["msg"].removeprefix("Input ").removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            hint = did_you_mean(name, fields) or "; --help lists all"
            problems[f"unknown key {name[:60]!r}{source}{hint}"] = []
        elif found["type"] == "missing" and isinstance(found["loc"][-1], int):
            given = _shown(found["input"])
            problems[f"{option(name)} = {given} needs one more value"] = []
        elif found["type"] == "missing":
            problems[f"{option(name)} is required"] = []
        elif name in fields:
            in_recipe = recipe is not None and name not in overridden
            label = f"{name}{source}" if in_recipe else option(name)
            hint = _choice_hint(found["input"], fields[name])
            value = _shown(found["input"])
            problems.setdefault(f"{label} = {value}", []).append(rule + hint)
        else:
            problems[f"{name[:60]}{source}: {rule}" if name else rule] = []
    if len(all_found) > MAX_PROBLEMS:
        problems[f"and {len(all_found) - MAX_PROBLEMS} more problems"] = []
    lines = [f"{what} {' or '.join(rules)}".strip() for what, rules in problems.items()]
    return UserError(" | ".join(lines))


def _without_echoes(found: list[Any]) -> list[Any]:
    """Leave out that a tuple is too short where its members are the problem."""
    inside = {one["loc"][:-1] for one in found if one["loc"]}
    return [
        one
        for one in found
        if not (one["type"] == "too_short" and one["loc"] in inside)
    ]


def _field_name(loc: Sequence[int | str], fields: Mapping[str, FieldInfo]) -> str:
    """Return the dotted name of a field; members of unions and tuples are dropped."""
    parts = [str(part) for part in loc]
    paths = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((path for path in paths if path in fields), ".".join(parts))


def _shown(value: object) -> str:
    """Return a value as the user wrote it, if it is short."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = ",".join(value)
    return reprlib.repr(value)


def _choice_hint(value: object, field: FieldInfo) -> str:
    choices = [c for c in members(field.annotation) if isinstance(c, str)]
    return did_you_mean(value, choices) if isinstance(value, str) else ""
