"""Recipe files, and what is wrong with their values in one line."""

import json
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from adarts_jax.cli.fields import members, option
from adarts_jax.errors import UserError, did_you_mean

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
    if path.suffix not in _READERS:
        raise UserError(f"recipe {str(path)!r} must end in .toml or .json")
    try:
        values = _READERS[path.suffix](path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = did_you_mean(path.name, (p.name for p in path.parent.glob("*.*")))
        reason = error.strerror or type(error).__name__
        raise UserError(f"cannot read recipe {str(path)!r}: {reason}{hint}") from None
    except ValueError as error:
        kind = path.suffix[1:].upper()
        raise UserError(f"recipe {str(path)!r} is not valid {kind}: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"recipe {str(path)!r} holds no table of fields")
    return values


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
    for found in error.errors(include_url=False):
        name = _field_name(found["loc"], fields)
        rule = found["msg"].removeprefix("Input ").removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            hint = did_you_mean(name, fields)
            problems[f"unknown key '{name}'{source}{hint}"] = []
        elif found["type"] == "missing" and isinstance(found["loc"][-1], int):
            problems[f"{option(name)} needs one more value"] = []
        elif found["type"] == "missing":
            problems[f"{option(name)} is required"] = []
        elif name in fields:
            in_recipe = recipe is not None and name not in overridden
            label = f"{name}{source}" if in_recipe else option(name)
            hint = _choice_hint(found["input"], fields[name])
            value = reprlib.repr(found["input"])
            problems.setdefault(f"{label} = {value}", []).append(rule + hint)
        else:
            problems[f"{name}{source}: {rule}" if name else rule] = []
    lines = [f"{what} {' or '.join(rules)}".strip() for what, rules in problems.items()]
    return UserError(" | ".join(lines))


def _field_name(loc: Sequence[int | str], fields: Mapping[str, FieldInfo]) -> str:
    """Return the dotted name of a field; members of unions and tuples are dropped."""
    parts = [str(part) for part in loc]
    paths = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((path for path in paths if path in fields), ".".join(parts))


def _choice_hint(value: object, field: FieldInfo) -> str:
    choices = [c for c in members(field.annotation) if isinstance(c, str)]
    return did_you_mean(value, choices) if isinstance(value, str) else ""
