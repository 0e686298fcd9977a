"""What a person sees of a run: a bar with the time left on a terminal, else lines.

Everything goes to stderr; results on stdout are the business of the programs.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, TextIO

LINE_INTERVAL = 10.0  # seconds between lines where there is no terminal
COMPILING = "compiling (quick if an earlier run left it in the cache)"


class Console:
    """Progress over the steps of a run, a context around the loop.

    Attributes:
      is_terminal: whether a bar is drawn.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False):
        """Choose the stream.

        Args:
          stream: None for stderr.
          quiet: write nothing at all.
        """
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self.is_terminal = self._stream.isatty() and not quiet
        self._bar = None
        self._task = None
        self._total = 0
        self._last_line = time.monotonic()

    def start(self, done: int, total: int) -> None:
        """Begin to show progress, from ``done`` of ``total`` steps on."""
        self._total = total
        if not self.is_terminal:
            return
        from rich import console, progress

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TextColumn("step {task.completed}/{task.total}"),
            progress.TextColumn("{task.fields[left]} left"),
            console=console.Console(file=self._stream),
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, completed=done, left="?")
        self._bar.start()

    def progress(self, step: int, description: str, seconds_per_step: float) -> None:
        """Show how far the run is.

        Args:
          step: steps done.
          description: what is going on, a few words.
          seconds_per_step: measured lately.
        """
        left = format_seconds((self._total - step) * seconds_per_step)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=step, description=description, left=left
            )
        elif time.monotonic() - self._last_line >= LINE_INTERVAL:
            speed = format_seconds(seconds_per_step)
            self.say(
                f"{description}: step {step}/{self._total}, {speed}/step, {left} left"
            )

    def say(self, message: str) -> None:
        """Write a line, above the bar if there is one."""
        if self._quiet:
            return
        self._last_line = time.monotonic()
        # A run of hours goes on when nobody can read (a closed pipe, a full disk).
        with contextlib.suppress(OSError):
            if self._bar is not None:
                self._bar.console.print(message, markup=False, highlight=False)
            else:
                self._stream.write(message + "\n")
                self._stream.flush()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextlib.contextmanager
def count_images(total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of a split's images are done; yields what takes the number."""
    start = time.monotonic()
    with Console() as console:
        console.start(0, total)

        def progress(done: int) -> None:
            seconds = (time.monotonic() - start) / done
            console.progress(min(done, total), "images", seconds)

        yield progress


def format_seconds(seconds: float) -> str:
    """Return a duration for people.

    >>> [format_seconds(s) for s in (0.0123, 4.56, 75, 7265)]
    ['12.3 ms', '4.6 s', '1:15 min', '2:01 h']
    """
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"
