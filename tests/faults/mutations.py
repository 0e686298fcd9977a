"""Inputs that are nearly right: valid files, changed in a few places."""

import re
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

NUMBER = re.compile(rb"-?\d+(\.\d+)?(e-?\d+)?")
NAME = re.compile(rb"[A-Za-z_][A-Za-z_0-9]*")

# What parsers stumble over, whatever they parse.
HARD = [
    *(b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc3\xa9", "\u2028𝟙".encode(), b"\\"),
    *(b"0", b"-1", b"1e400", b"nan", b"inf", b"-0.0", b"1.5", b"true", b"null", b"''"),
    *(b"9" * 30, b"9" * 5000, b"1000000000000", b"0x1f", b"1_000", b'"\\ud800"'),
    *(b"[", b"]", b"{", b"}", b"(", b")", b",", b"=", b":", b"#", b"\n", b"\r", b'"'),
    *(b"[" * 5000, b"{" * 5000, b"[[" * 20, b'{"a":' * 3000, b"(" * 3000, b"a." * 900),
    *(b"__import__('os')", b"../..", b"%s%n", b"A" * 3000, b"[]", b"{}", b'""'),
]


def flip(data: bytes, at: int, amount: int, word: bytes) -> bytes:
    """Change a byte."""
    return data[:at] + bytes([amount]) + data[at + 1 :]


def insert(data: bytes, at: int, amount: int, word: bytes) -> bytes:
    """Put a word anywhere."""
    return data[:at] + word + data[at:]


def delete(data: bytes, at: int, amount: int, word: bytes) -> bytes:
    """Leave out a few bytes."""
    return data[:at] + data[at + amount % 32 :]


def repeat(data: bytes, at: int, amount: int, word: bytes) -> bytes:
    """Write a passage several times."""
    piece = data[at : at + amount]
    return data[:at] + piece * (1 + amount % 9) + data[at + amount :]


def cut(data: bytes, at: int, amount: int, word: bytes) -> bytes:
    """End early."""
    return data[:at]


def replace_number(data: bytes, at: int, amount: int, word: bytes) -> bytes:
    """Replace the next number."""
    return NUMBER.sub(lambda _: word, data[at:], count=1).join([data[:at], b""])


def replace_name(data: bytes, at: int, amount: int, word: bytes) -> bytes:
    """Replace the next name."""
    return NAME.sub(lambda _: word, data[at:], count=1).join([data[:at], b""])


def swap(data: bytes, at: int, amount: int, word: bytes) -> bytes:
    """Exchange two passages."""
    middle = at + amount
    return (
        data[:at]
        + data[middle : middle + amount]
        + data[at:middle]
        + data[middle + amount :]
    )


CHANGES: list[Callable[[bytes, int, int, bytes], bytes]] = [
    *(flip, insert, delete, repeat, cut, swap),
    *[replace_number, replace_name] * 3,  # these get furthest
]


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Draw a valid input with up to five changes, or a soup of its words.

    Args:
      draw: from hypothesis.
      seeds: valid inputs.
      words: what the language has; those that are hard for any are added.
    """
    vocabulary = st.sampled_from(words) | st.sampled_from(HARD)
    if draw(st.integers(0, 19)) == 0:
        return b" ".join(draw(st.lists(vocabulary, max_size=30)))
    data = draw(st.sampled_from(seeds))
    changes = st.tuples(
        st.sampled_from(CHANGES), st.floats(0, 1), st.integers(0, 255), vocabulary
    )
    for change, place, amount, word in draw(st.lists(changes, max_size=5)):
        data = change(data, int(place * len(data)), amount, word)
    return data
