"""A disk that is full, gone or not writable, in words a user can act on."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

from adarts_jax.errors import UserError

_WAYS_OUT = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room in your quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
}


@contextlib.contextmanager
def disk_advice(place: Path, check_present: Callable[[], None]) -> Iterator[None]:
    """Turn a failed access to the files of a run into an error of the user.

    Whole files are put in place at the end, so what was saved before stays intact.

    Args:
      place: run directory.
      check_present: raises if it is no longer there.

    Raises:
      UserError: names the file, the reason and how to continue.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        check_present()  # else what fails below has many names
        if not isinstance(error, OSError):
            raise
        name, reason = error.filename or place, error.strerror or str(error)
        way_out = _WAYS_OUT.get(error.errno or 0, "mend that")
        raise UserError(
            f"cannot use {str(name)!r}: {reason}; what was saved is intact: {way_out}, "
            f"then continue with --resume --out {place}"
        ) from error
