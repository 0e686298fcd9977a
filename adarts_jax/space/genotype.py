"""Genotype: the discrete description of a normal and a reduction cell.

Validated when made, hashable, with a JSON form of its own and the text notations of
the originals. Builds nothing: networks are made from it elsewhere.
"""

import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from adarts_jax.errors import UserError, did_you_mean
from adarts_jax.space import topology
from adarts_jax.space.genotype_file import read_small_text
from adarts_jax.space.genotype_text import MAX_TEXT, read_genotype_text
from adarts_jax.space.operations import ATTENTIONS, OPERATIONS, operation_kind

FORMAT = "adarts-genotype/1"
MAX_NODES = 16

_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")


class Entry(NamedTuple):
    """One chosen edge of a cell.

    Attributes:
      op: name of the operation, one of ``operations.OPERATIONS``.
      source: state the edge starts from; 0 and 1 are the inputs of the cell.
      attention: name of the attention after the operation (Att-DARTS), else None.
    """

    op: str
    source: int
    attention: str | None = None


@dataclass(frozen=True)
class Genotype:
    """Two entries per intermediate node, and the states that form the output.

    Entries 2 i and 2 i + 1 belong to node i, which is state i + 2 and may use the
    states 0 to i + 1. Plain sequences are accepted and stored as tuples.

    Attributes:
      normal: entries of the normal cell.
      normal_concat: states concatenated, in this order, to the normal cell's output.
      reduce: entries of the reduction cell.
      reduce_concat: states of the reduction cell's output.

    Raises:
      UserError: an unknown operation or attention, a source or concatenated state
        out of range, an odd number of entries, or more than ``MAX_NODES`` nodes.

    >>> cell = [("sep_conv_3x3", 1), ("skip_connect", 0)]
    >>> genotype = Genotype(cell, [2], cell, [2])
    >>> genotype.normal[0].op, genotype.num_nodes("normal")
    ('sep_conv_3x3', 1)
    """

    normal: tuple[Entry, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Entry, ...]
    reduce_concat: tuple[int, ...]

    def __post_init__(self):
        for cell_type in topology.CELL_TYPES:
            field = f"{cell_type}_concat"
            entries = _checked_entries(cell_type, getattr(self, cell_type))
            concat = _checked_concat(field, getattr(self, field), len(entries) // 2)
            object.__setattr__(self, cell_type, entries)
            object.__setattr__(self, field, concat)

    def entries(self, cell_type: topology.CellType) -> tuple[Entry, ...]:
        """Return the entries of one cell type."""
        return self.reduce if cell_type == "reduce" else self.normal

    def concat(self, cell_type: topology.CellType) -> tuple[int, ...]:
        """Return the concatenated states of one cell type."""
        return self.reduce_concat if cell_type == "reduce" else self.normal_concat

    def num_nodes(self, cell_type: topology.CellType) -> int:
        """Return the number of intermediate nodes of one cell type."""
        return len(self.entries(cell_type)) // 2

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON contract as plain lists, strings and integers."""
        plain: dict[str, Any] = {"format": FORMAT}
        for cell_type in topology.CELL_TYPES:
            plain[cell_type] = [
                _plain_entry(entry) for entry in self.entries(cell_type)
            ]
            plain[f"{cell_type}_concat"] = list(self.concat(cell_type))
        return plain

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Build a genotype from the decoded JSON contract.

        Raises:
          UserError: not an object, another format, unknown or missing keys, or
            anything the constructor refuses.
        """
        if not isinstance(value, Mapping):
            raise UserError(
                f"not a genotype: expected a JSON object, found {_shown(value)}"
            )
        if value.get("format") != FORMAT:
            keys = ", ".join(_shown(key) for key in list(value)[:6])
            raise UserError(
                f"not a genotype: format is {_shown(value.get('format'))}, expected "
                f"'{FORMAT}' (the keys are: {keys or 'none'})"
            )
        for key in value:
            if key != "format" and key not in _FIELDS:
                hint = did_you_mean(str(key)[:64], _FIELDS)
                raise UserError(f"unknown key {_shown(key)} in a genotype{hint}")
        missing = [name for name in _FIELDS if name not in value]
        if missing:
            raise UserError(f"the genotype lacks {', '.join(missing)}")
        return cls(**{name: value[name] for name in _FIELDS})

    def to_json(self) -> str:
        """Return the JSON contract as text, one field per line."""
        lines = [f'  "{key}": {json.dumps(v)}' for key, v in self.to_dict().items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON contract.

        Raises:
          UserError: not JSON, too long, or not a genotype.
        """
        if len(text) > MAX_TEXT:
            raise UserError(
                f"a genotype of {len(text)} characters is too large; "
                f"the limit is {MAX_TEXT}"
            )
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            raise UserError(f"not valid JSON: {place}: {error.msg}") from None
        except (RecursionError, ValueError):  # ValueError: an integer of many digits
            raise UserError(
                "not a genotype: JSON with very deep lists or very long integers"
            ) from None
        return cls.from_dict(value)

    def to_text(self) -> str:
        """Return the notation of DARTS (of Att-DARTS where there is attention)."""
        fields = [f"{name}={_text_field(getattr(self, name))}" for name in _FIELDS]
        return f"Genotype({', '.join(fields)})"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a genotype in the JSON form or a text dialect of the originals.

        >>> text = "Genotype(normal=[('skip_connect', 0), ('none', 1)], "
        >>> text += "normal_concat=range(2, 3), "
        >>> text += "reduce=[[('skip_connect', 0), ('none', 1)]], reduce_concat=[2])"
        >>> Genotype.parse(text).normal_concat
        (2,)

        Differs from the original: nothing is evaluated.

        Raises:
          UserError: the text is not a genotype; says where and why.
        """
        if text.lstrip().startswith("{"):
            return cls.from_json(text)
        return cls(**read_genotype_text(text))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a genotype file, JSON or a text dialect.

        Raises:
          UserError: no such file, or not a genotype; names the path.
        """
        text = read_small_text(path)
        try:
            return cls.parse(text)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the JSON form; the file appears complete or not at all."""
        temporary = Path(f"{path}.tmp")
        temporary.write_text(self.to_json(), encoding="utf-8")
        os.replace(temporary, path)


def operation_shares(genotype: Genotype) -> dict[str, float]:
    """Return the share of skip, pool and none entries per cell type, in [0, 1].

    The keys are ``normal/skip``, ``normal/pool``, ``normal/none`` and the same for
    ``reduce``. A share of skips near 1 is the known way a search collapses.
    """
    shares = {}
    for cell_type in topology.CELL_TYPES:
        kinds = [operation_kind(entry.op) for entry in genotype.entries(cell_type)]
        for kind in ("skip", "pool", "none"):
            shares[f"{cell_type}/{kind}"] = kinds.count(kind) / len(kinds)
    return shares


def _checked_entries(field: str, value: object) -> tuple[Entry, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UserError(f"{field} must be a list of entries, found {_shown(value)}")
    if not value or len(value) % 2:
        raise UserError(
            f"{field} has {len(value)} entries; expected two per intermediate node"
        )
    if len(value) > 2 * MAX_NODES:
        raise UserError(
            f"{field} has {len(value) // 2} nodes; the limit is {MAX_NODES}"
        )
    return tuple(_checked_entry(field, i, entry) for i, entry in enumerate(value))


def _checked_entry(field: str, position: int, value: object) -> Entry:
    place = f"{field}[{position}]"
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= 3:
        raise UserError(
            f"{place} must be (operation, source) or (operation, source, attention), "
            f"found {_shown(value)}"
        )
    op, source, attention = Entry(*value)
    _check_name(place, "operation", op, OPERATIONS)
    if attention is not None:
        _check_name(place, "attention", attention, ATTENTIONS)
    target = position // 2 + topology.NUM_INPUTS
    if not _is_integer(source) or not 0 <= source < target:
        raise UserError(
            f"{place}: source {_shown(source)} is out of range; node {target} may use "
            f"the states 0 to {target - 1}"
        )
    return Entry(op, source, attention)


def _check_name(place: str, role: str, name: object, known: Sequence[str]) -> None:
    if isinstance(name, str) and name in known:
        return
    hint = did_you_mean(name[:64], known) if isinstance(name, str) else ""
    hint = hint or f"; known: {', '.join(known)}"
    raise UserError(f"{place}: unknown {role} {_shown(name)}{hint}")


def _checked_concat(field: str, value: object, num_nodes: int) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise UserError(f"{field} must be a list of states, found {_shown(value)}")
    last = num_nodes + topology.NUM_INPUTS - 1
    for state in value:
        if not _is_integer(state) or not topology.NUM_INPUTS <= state <= last:
            raise UserError(
                f"{field}: state {_shown(state)} is out of range; "
                f"the intermediate nodes are {topology.NUM_INPUTS} to {last}"
            )
    if len(set(value)) != len(value):
        raise UserError(f"{field} names a state twice: {_shown(list(value))}")
    return tuple(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain_entry(entry: Entry) -> list:
    return list(entry if entry.attention is not None else entry[:2])


def _text_field(values: tuple) -> str:
    plain = [tuple(_plain_entry(v)) if isinstance(v, Entry) else v for v in values]
    return repr(plain)


def _shown(value: object) -> str:
    """Return a short form of a wrong value, on one line."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a very large integer"
