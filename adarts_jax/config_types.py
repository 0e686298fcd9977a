"""Types of the fields of configurations: numbers with their ranges, names of files.

The upper limits are far beyond any use; they keep slips of the keyboard, such as a
number with ten zeros too many, from filling the memory.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from adarts_jax.space.topology import MAX_CELLS, MAX_CHANNELS, MAX_SIDE

MAX_NAME_BYTES = 255  # of one part of a path, on every usual file system
MAX_PATH_BYTES = 4095


def check_path(text: str) -> str:
    """Return the name of a file or folder that an operating system can have.

    Args:
      text: as given by the user; need not exist.

    Raises:
      ValueError: it is empty, too long, or has characters no name can have.
    """
    if not text.strip():
        raise ValueError("must not be empty; give a path")
    if "\0" in text:
        raise ValueError("must not contain a null character; give a path")
    try:
        parts = text.encode("utf-8").split(b"/")
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8; rename it") from None
    longest = max(map(len, parts))
    if longest > MAX_NAME_BYTES or len(text.encode()) > MAX_PATH_BYTES:
        raise ValueError(
            f"is too long ({longest} bytes between slashes); use at most "
            f"{MAX_NAME_BYTES}, and {MAX_PATH_BYTES} in all"
        )
    return text


PathText = Annotated[str, AfterValidator(check_path)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Cells = Annotated[int, Field(ge=1, le=MAX_CELLS)]
Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Pixels = Annotated[int, Field(ge=0, le=MAX_SIDE)]
Epochs = Annotated[int, Field(ge=0, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
OnNan = Literal["stop", "rollback"]
