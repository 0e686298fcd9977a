"""What one kind of training does in an epoch; the rest is the same for all."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from adarts_jax.engine.epoch import Training
from adarts_jax.engine.pacing import Advance

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Work:
    """What one kind of training does in an epoch.

    Attributes:
      begin: number of an epoch, and how often the run has gone back so far -> function
        that advances within the epoch; another count means other random numbers.
      describe: number of an epoch -> a few words, for the progress.
      measure: state at the end of an epoch and its number -> values to write down; may
        write files of its own, which a resumed run writes again.
      summarise: record of an epoch -> a line for people.
      remedy: what a user can change when the loss is not finite.
      goes_back: whether the run then goes back to the beginning of the epoch by itself.
      names: of the searches side by side, see `run_steps`.
    """

    begin: Callable[[int, int], Advance]
    describe: Callable[[int], str]
    measure: Callable[[Training, int], Mapping[str, Any]]
    summarise: Callable[[Record], str]
    remedy: str
    goes_back: bool = False
    names: tuple[str, ...] = ("",)
