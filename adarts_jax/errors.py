"""The one exception that means "the user can fix this"."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the caller: says what was wrong, which value, and the way out.

    Programs print it as one line ``error: ...`` and exit with status 2; the message
    must therefore be a single line that makes sense without a traceback.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or an empty string.

    >>> did_you_mean("epoch", ["epochs", "seed"])
    "; did you mean 'epochs'?"
    """
    # Cut: the time of the comparison grows with the square of the length.
    close = difflib.get_close_matches(name[:64], list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def format_advice(found: object, known: str) -> str:
    """Return what to do about a file of another format.

    Args:
      found: its format.
      known: the one this version writes, such as ``adarts-checkpoint/1``.

    >>> format_advice("adarts-checkpoint/2", "adarts-checkpoint/1")
    'it was written by a newer adarts-jax; upgrade adarts-jax'
    """
    kind, _, number = known.rpartition("/")
    found_kind, _, found_number = str(found).rpartition("/")
    is_number = found_number.isascii() and found_number.isdigit()
    if found_kind == kind and is_number and int(found_number) > int(number):
        return "it was written by a newer adarts-jax; upgrade adarts-jax"
    return "it was written by another program or version; start a new run"


def shorten(text: object, limit: int = 80) -> str:
    """Return what a file says in the length that a message can bear.

    >>> shorten("cells.0.weight", limit=10)
    'cells.0...'
    """
    shown = str(text)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
