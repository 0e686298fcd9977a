"""Command line -> validated config and the options of the run."""

import argparse
import dataclasses
import reprlib
import shlex
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from adarts_jax.cli.fields import (
    from_text,
    group_title,
    help_text,
    leaves,
    members,
    metavar,
    option,
)
from adarts_jax.cli.recipes import explain, put, read_recipe
from adarts_jax.config_types import check_path
from adarts_jax.engine import manifest
from adarts_jax.errors import UserError, did_you_mean

Config = TypeVar("Config", bound=BaseModel)

# Keeps the options of the run apart from fields of the same name.
_RUN = "run:"

# What may follow an option of a truth value; anything else is another argument.
_TRUTH = frozenset({"true", "false", "yes", "no", "on", "off", "1", "0"})


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where and how to run; nothing here changes a result.

    Attributes:
      out: run directory; None for ``runs/<date>-<recipe>``.
      resume: continue the run in ``out``.
      overwrite: replace the run in ``out``.
      compilation_cache: folder of compiled programs, "off", or None for the usual one.
      recipe: name of the recipe file, "" for the built-in defaults.
      command: the command line, for the record.
    """

    out: Path | None = None
    resume: bool = False
    overwrite: bool = False
    compilation_cache: str | None = None
    recipe: str = ""
    command: str = ""


def parse(
    model: type[Config],
    argv: Sequence[str],
    *,
    program: str,
    positional: Sequence[str] = (),
    has_run_directory: bool = True,
) -> tuple[Config, RunOptions]:
    """Turn a command line into a validated config and the options of the run.

    Hyphens and underscores in option names are the same. An option of a truth value
    may stand alone and then means true. ``--resume`` without ``--config`` starts from
    the ``config.json`` of the run that is continued.

    Args:
      model: config model; its fields become options, its docstring the description.
      argv: arguments without the name of the program.
      program: dotted module, for the help.
      positional: fields of ``model`` that are arguments instead of options.
      has_run_directory: whether ``--out``, ``--resume`` and ``--overwrite`` exist.

    Returns:
      The config, and where and how to run.

    Raises:
      UserError: unknown option or key, missing or wrong value, unreadable recipe.
      SystemExit: after ``--help``.
    """
    arguments = "".join(f" {name.upper()}" for name in positional)
    parser = _Parser(
        usage=f"python -m {program}{arguments} [--option value ...]",
        description=model.__doc__,
        allow_abbrev=False,
    )
    _add_run_options(parser, has_run_directory=has_run_directory)
    _add_fields(parser, model, positional)
    fields = dict(leaves(model))
    flags = {option(n) for n, f in fields.items() if bool in members(f.annotation)}
    spelled = _spelled(argv, flags, has_arguments=bool(positional))
    how, given = _read_arguments(parser, spelled)
    recipe: Path | None = how.pop("config", None)
    run = RunOptions(
        recipe=recipe.stem if recipe else "",
        command=shlex.join(["python", "-m", program, *argv]),
        **how,
    )
    recipe = recipe or _saved_config(run)
    values = {} if recipe is None else read_recipe(recipe)
    for name, text in given.items():
        is_many = isinstance(text, list)  # of an argument that may be repeated
        put(values, name, text if is_many else from_text(text, fields[name]))
    try:
        return model.model_validate(values), run
    except ValidationError as error:
        raise explain(error, fields, given.keys(), recipe) from None


def place(text: str) -> Path:
    """Return the path that an argument names.

    Raises:
      ArgumentTypeError: no file can have that name.
    """
    try:
        return Path(check_path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{reprlib.repr(text)} {error}") from None


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing a usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; see --help")


def _add_run_options(parser: _Parser, *, has_run_directory: bool) -> None:
    group = parser.add_argument_group("run")

    def add(name: str, text: str, **kind: Any) -> None:
        dest = _RUN + name.replace("-", "_")
        group.add_argument(
            f"--{name}", dest=dest, help=text, default=argparse.SUPPRESS, **kind
        )

    recipe = "recipe (.toml) or config.json of a run; options override it"
    add("config", recipe, metavar="FILE", type=place)
    if has_run_directory:
        out = "run directory (default: runs/<date>-<recipe>)"
        add("out", out, metavar="DIR", type=place)
        resume = "continue the run in DIR where it stopped"
        add("resume", resume, action="store_true")
        add("overwrite", "replace the run in DIR, if any", action="store_true")
    cache = "where compiled programs are kept (default: $ADARTS_CACHE, else "
    usual = cache + "~/.cache/adarts_jax/xla)"
    add("compilation-cache", usual, metavar="DIR|off", type=lambda t: str(place(t)))


def _add_fields(
    parser: _Parser, model: type[BaseModel], positional: Sequence[str]
) -> None:
    """Add every field; values stay text, judged later by the model."""
    groups = {"": parser.add_argument_group("general")}
    for name, field in leaves(model):
        if name in positional:
            is_many = tuple in members(field.annotation)
            many: dict[str, Any] = {"nargs": "*", "default": argparse.SUPPRESS}
            kind = many if is_many else {}
            parser.add_argument(name, help=help_text(field), **kind)
            continue
        group, _, _ = name.rpartition(".")
        if group not in groups:
            groups[group] = parser.add_argument_group(group, group_title(model, group))
        groups[group].add_argument(
            option(name),
            dest=name,
            metavar=metavar(field),
            help=help_text(field),
            default=argparse.SUPPRESS,
        )


def _read_arguments(
    parser: _Parser, argv: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parse, and refuse unknown options with the closest known one.

    Returns:
      Options of the run by name, and texts by dotted field name (a list of them for an
      argument that may be repeated); only those given.
    """
    # Intermixed: arguments may stand before and after options.
    namespace, unknown = parser.parse_known_intermixed_args(argv)
    for arg in unknown:
        if arg.startswith("-"):
            name = arg.partition("=")[0]
            known = [text for a in parser._actions for text in a.option_strings]
            hint = did_you_mean(name, known) or "; see --help"
            raise UserError(f"unknown option {reprlib.repr(name)}{hint}")
    if unknown:
        raise UserError(f"unexpected argument {reprlib.repr(unknown[0])}; see --help")
    given = vars(namespace)
    run = {n.removeprefix(_RUN): v for n, v in given.items() if n.startswith(_RUN)}
    return run, {n: v for n, v in given.items() if not n.startswith(_RUN)}


def _spelled(
    argv: Sequence[str], flags: AbstractSet[str], *, has_arguments: bool
) -> list[str]:
    """Write option names with hyphens, and the value of a flag where it is left out."""
    spelled = []
    for arg, after in zip_longest(argv, argv[1:], fillvalue="-"):
        name, equals, value = arg.partition("=")
        hyphens = name.replace("_", "-") if name.startswith("--") else name
        alone = hyphens in flags and (
            after.startswith("-") or (has_arguments and after.lower() not in _TRUTH)
        )
        spelled.append(hyphens + (equals + value or ("=true" if alone else "")))
    return spelled


def _saved_config(run: RunOptions) -> Path | None:
    """Return the config of the run to continue, where there is one.

    Raises:
      UserError: a newer version wrote the run, whose config may have other fields.
    """
    if run.out is None or not run.resume:
        return None
    manifest.read(run.out / "manifest.json")
    file = run.out / "config.json"
    return file if file.is_file() else None
