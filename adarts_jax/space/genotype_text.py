"""Read genotypes written as Python text, without evaluating any of it.

The originals print a genotype as the call of a named tuple and read it back with
``eval``. Here a tokenizer and a small recursive parser accept that notation and
nothing else: names of the fields, strings, integers, lists, tuples and ``range``.
What the strings and integers mean is checked by ``adarts_jax.space.genotype``.

Dialects (``Genotype(...)``, optionally after ``NAME =`` or a log time stamp):
  DARTS, PC-DARTS, ADARTS, alpha-ADARTS: a flat list of ``(operation, source)``;
  Att-DARTS: ``(operation, source, attention)``, and two bottleneck fields;
  pt.darts: one list of two ``(operation, source)`` per node.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from adarts_jax.errors import UserError, did_you_mean

MAX_TEXT = 65_536
MAX_NESTING = 3
MAX_RANGE = 64

_ENTRY_FIELDS = ("normal", "reduce")
_CONCAT_FIELDS = ("normal_concat", "reduce_concat")
_BOTTLENECK_FIELDS = ("normal_bottleneck", "reduce_bottleneck")
_FIELDS = (*_ENTRY_FIELDS, *_CONCAT_FIELDS, *_BOTTLENECK_FIELDS)

# Digits, names and strings are bounded here, so nothing later meets a huge one.
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f]+|\#[^\n]*)
      | (?P<string>'[^'"\\\n]{0,64}'|"[^'"\\\n]{0,64}")
      | (?P<integer>-?[0-9]{1,6}(?![\w.]))
      | (?P<name>[A-Za-z_][A-Za-z0-9_]{0,63}(?!\w))
      | (?P<mark>[()\[\],=])""",
    re.VERBOSE,
)
_LOG_TIME = re.compile(r"\s*\d\d/\d\d \d\d:\d\d:\d\d [AP]M ")
_CLOSING = {"(": ")", "[": "]"}


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def read_genotype_text(text: str) -> dict[str, Any]:
    """Return the four fields of a genotype written in one of the dialects.

    Entries come back as flat lists ``[operation, source]`` or ``[operation, source,
    attention]``; an empty attention (Att-DARTS without attention) is dropped.

    Raises:
      UserError: the text is too long, or is not a genotype; says where.
    """
    if len(text) > MAX_TEXT:
        raise UserError(
            f"a genotype text of {len(text)} characters is too large; "
            f"the limit is {MAX_TEXT}"
        )
    fields = _Parser(text).genotype()
    for name in _BOTTLENECK_FIELDS:
        if fields.pop(name, "") != "":
            raise UserError(
                f"{name} is not empty; attention after the concatenation is not "
                f"supported, use {name}=''"
            )
    missing = [name for name in _FIELDS[:4] if name not in fields]
    if missing:
        raise UserError(f"the genotype lacks {', '.join(missing)}")
    for name in _ENTRY_FIELDS:
        fields[name] = _flat_entries(name, fields[name])
    return fields


def _flat_entries(field: str, value: object) -> list:
    """Bring the entries of every dialect into one flat list."""
    entries = _as_list(field, value)
    if entries and all(_is_nested(item) for item in entries):
        for node, pair in enumerate(entries, start=2):
            if len(pair) != 2:
                raise UserError(
                    f"{field}: node {node} has {len(pair)} entries, expected 2"
                )
        entries = [entry for pair in entries for entry in pair]
    return [_without_empty_attention(entry) for entry in entries]


def _as_list(field: str, value: object) -> list:
    if not isinstance(value, list):
        raise UserError(f"{field} must be a list of (operation, source) entries")
    return value


def _is_nested(item: object) -> bool:
    return isinstance(item, list) and bool(item) and isinstance(item[0], list)


def _without_empty_attention(entry: object) -> object:
    if isinstance(entry, list) and len(entry) == 3 and entry[2] == "":
        return entry[:2]
    return entry


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str):
        self.text = text
        self.tokens = _tokens(text)
        self.token = next(self.tokens)

    def genotype(self) -> dict:
        """``[NAME =] Genotype ( field = value , ... )`` and nothing after it."""
        name = self.take("name", "Genotype(...)")
        if self.token.text == "=":
            self.mark("=")
            name = self.take("name", "Genotype(...)")
        if name.text != "Genotype":
            raise self.error(name, "expected Genotype(...)")
        self.mark("(")
        fields = {}
        while self.token.text != ")":
            field = self.field(fields)
            self.mark("=")
            fields[field] = self.value(depth=0)
            if self.token.text != ")":
                self.mark(",")
        self.mark(")")
        if self.token.kind != "end":
            raise self.error(self.token, "expected nothing after the genotype")
        return fields

    def field(self, seen: dict) -> str:
        """The name of a field that was not given before."""
        token = self.take("name", "a field of the genotype")
        if token.text in ("recurrent", "concat"):
            raise UserError(
                "this is the genotype of a recurrent cell; expected one with normal "
                "and reduction cells"
            )
        if token.text not in _FIELDS:
            hint = did_you_mean(token.text, _FIELDS)
            raise UserError(f"unknown field '{token.text}' in a genotype{hint}")
        if token.text in seen:
            raise self.error(token, "expected every field once")
        return token.text

    def value(self, *, depth: int) -> str | int | list:
        """A string, an integer, a list or tuple of values, or a range."""
        token = self.token
        if token.text in _CLOSING:
            return self.sequence(depth=depth)
        if token.kind == "string":
            return self.take("string").text[1:-1]
        if token.kind == "integer":
            return int(self.take("integer").text)
        if token.text == "range":
            return self.integer_range()
        raise self.error(token, "expected a list, a string, an integer or range(...)")

    def sequence(self, *, depth: int) -> list:
        """Values between brackets; a tuple is read as a list."""
        if depth == MAX_NESTING:
            raise self.error(self.token, f"expected at most {MAX_NESTING} nested lists")
        closing = _CLOSING[self.take("mark").text]
        items = []
        while self.token.text != closing:
            items.append(self.value(depth=depth + 1))
            if self.token.text != closing:
                self.mark(",")
        self.mark(closing)
        return items

    def integer_range(self) -> list[int]:
        """``range(stop)`` or ``range(start, stop)``, written out."""
        name = self.take("name")
        if self.token.text != "(":
            raise self.error(self.token, "expected '('")
        bounds = self.sequence(depth=MAX_NESTING - 1)
        if not 1 <= len(bounds) <= 2 or not all(isinstance(b, int) for b in bounds):
            raise self.error(name, "expected one or two integers in the range")
        numbers = range(*bounds)
        if len(numbers) > MAX_RANGE:
            raise self.error(name, f"expected a range of at most {MAX_RANGE}")
        return list(numbers)

    def mark(self, text: str) -> None:
        """Take one punctuation mark."""
        if self.token.text != text:
            raise self.error(self.token, f"expected '{text}'")
        self.take("mark")

    def take(self, kind: str, wanted: str = "") -> _Token:
        """Return the current token, which must be of a kind, and move on."""
        token = self.token
        if token.kind != kind:
            raise self.error(token, f"expected {wanted or kind}")
        self.token = next(self.tokens)
        return token

    def error(self, token: _Token, problem: str) -> UserError:
        """Build the error that names a token and its place."""
        found = repr(token.text) if token.text else "the end"
        return _error(self.text, token.start, f"{problem}, found {found}")


def _tokens(text: str) -> Iterator[_Token]:
    """Yield the tokens of ``text`` and then, for ever, an end token."""
    stamp = _LOG_TIME.match(text)
    position = stamp.end() if stamp else 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            found = repr(text[position : position + 16])
            raise _error(text, position, f"cannot read {found}")
        if match.lastgroup and match.lastgroup != "space":
            yield _Token(match.lastgroup, match.group(), position)
        position = match.end()
    while True:
        yield _Token("end", "", len(text))


def _error(text: str, position: int, problem: str) -> UserError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return UserError(f"not a genotype: line {line}, column {column}: {problem}")
