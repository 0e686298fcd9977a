"""Fields of a config model as options: names, help texts, values written as text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_KINDS = {
    bool: "true|false",
    int: "INT",
    float: "NUMBER",
    str: "TEXT",
    tuple: "A,B,...",
    Path: "PATH",
    type(None): "none",
}


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted name and the description of every field that is no group."""
    for name, field in model.model_fields.items():
        group = _model(field)
        if group is None:
            yield prefix + name, field
        else:
            yield from leaves(group, f"{prefix}{name}.")


def group_title(model: type[BaseModel], name: str) -> str:
    """Return the docstring of a nested group, "" for the model itself."""
    title = ""
    for part in filter(None, name.split(".")):
        group = _model(model.model_fields[part])
        assert group is not None
        model, title = group, group.__doc__ or ""
    return title


def option(name: str) -> str:
    """Return the option of a dotted field name.

    >>> option("data.image_size")
    '--data.image-size'
    """
    return "--" + name.replace("_", "-")


def from_text(text: str, field: FieldInfo) -> Any:
    """Prepare an option's text for the model, which converts numbers and booleans.

    ``none`` stands for None, commas separate the members of a tuple.
    """
    kinds = list(members(field.annotation))
    if text.lower() == "none" and type(None) in kinds:
        return None
    if tuple in kinds and ("," in text or not set(kinds) - {tuple, type(None)}):
        return [part.strip() for part in text.split(",")]
    return text


def members(annotation: object) -> Iterator[object]:
    """Yield the plain types and the literal values an annotation allows.

    >>> list(members(Literal["a", "b"] | None))
    ['a', 'b', <class 'NoneType'>]
    """
    origin = get_origin(annotation)
    if origin is Literal:
        yield from get_args(annotation)
    elif origin is tuple:
        yield tuple
    elif origin is None:
        yield annotation
    elif hasattr(annotation, "__metadata__"):
        yield from members(get_args(annotation)[0])
    else:
        for member in get_args(annotation):
            yield from members(member)


def metavar(field: FieldInfo) -> str:
    """Return a short text for the values an option takes."""
    shown = [
        _KINDS.get(kind, kind.__name__) if isinstance(kind, type) else str(kind)
        for kind in members(field.annotation)
    ]
    return "|".join(dict.fromkeys(shown))


def help_text(field: FieldInfo) -> str:
    """Return the description with the default, escaped for argparse."""
    text = " ".join((field.description or "").split()).replace("%", "%%")
    default = "required" if field.is_required() else f"default: {_shown(field.default)}"
    return f"{text} ({default})"


def _model(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)
