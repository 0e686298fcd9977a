"""How a program ends: one line on stderr and an exit status."""

import logging
import sys
from collections.abc import Callable, Sequence

from adarts_jax.engine import host_memory
from adarts_jax.engine.outcomes import RunStopped
from adarts_jax.errors import UserError


def run_program(
    run: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None
) -> int:
    """Run a program and turn every expected end into one line and a status.

    Args:
      run: takes the arguments; returns on success.
      argv: arguments; None for those of the process.

    Returns:
      0 on success, 2 for a mistake the user can fix, 130 or 143 after a signal, 1 when
      the run failed. Anything unexpected passes through with its traceback.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    # Orbax's notes, and its tracebacks of what ends up in one line here.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    host_memory.keep_freed_memory()
    try:
        run(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        _say(f"error: {error}")
        return 2
    except RunStopped as stop:
        _say(f"{stop.label}: {stop}")
        return stop.exit_code
    except KeyboardInterrupt:
        _say("interrupted: nothing new was saved")
        return 130
    return 0


def _say(message: str) -> None:
    """Write one line to stderr; nothing in it can steer a terminal."""
    line = " ".join(message.split())
    shown = (c if c.isprintable() else ascii(c)[1:-1] for c in line)
    sys.stderr.write("".join(shown) + "\n")
