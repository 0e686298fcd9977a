"""How a run can end before its end, other than by a mistake of the user.

`adarts_jax.errors.UserError` is the user's to fix (status 2); these are not.
"""

import signal


class RunStopped(Exception):  # noqa: N818
    """An orderly early end; what was saved is intact.

    Programs print it as one line and exit with ``exit_code``.

    Attributes:
      label: first word of the line.
      exit_code: status of the program.
    """

    label = "error"
    exit_code = 1


class Diverged(RunStopped):
    """The loss stopped being a finite number."""


class Interrupted(RunStopped):
    """A signal asked the run to stop, and its state was saved.

    Attributes:
      signum: the signal.
    """

    label = "interrupted"

    def __init__(self, message: str, signum: int = signal.SIGINT):
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum
