"""Ctrl-C and SIGTERM: finish the step, save, leave; a second one leaves at once.

Signals only; what is saved, and where, is the business of the loop.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Context in which SIGINT and SIGTERM become a request.

    Until `saving_is_useful` is set there is nothing to save, and the first signal
    already ends the process. Outside the main thread, where Python allows no
    handlers, the context does nothing.

    Attributes:
      requested: the signal that asked to stop, None so far.
      saving_is_useful: whether there is progress that a stop would lose.
    """

    def __init__(self, announce: Callable[[str], None] = lambda message: None):
        self.requested: int | None = None
        self.saving_is_useful = False
        self._announce = announce
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the former handlers back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        name = signal.Signals(signum).name
        if self.requested is None and self.saving_is_useful:
            self.requested = signum
            self._announce(f"{name}: stopping after this step (again: stop at once)")
            return
        self._announce(f"{name}: stopping at once")
        leave(signum)


def leave(signum: int) -> None:
    """End the process now, with the status a shell shows for this signal.

    An ordinary exit would first wait for the computation in progress. In an
    interactive session the session itself must survive.

    Raises:
      KeyboardInterrupt: in an interactive session.
    """
    if hasattr(sys, "ps1") or "ipykernel" in sys.modules:
        raise KeyboardInterrupt
    sys.stderr.flush()
    os._exit(128 + signum)
