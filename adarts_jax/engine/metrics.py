"""``metrics.jsonl``: one record per epoch, each value a finite number or null."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adarts_jax.engine import files
from adarts_jax.engine.epoch import MetricSums
from adarts_jax.errors import UserError

# Clocks: the only values that differ between two runs of the same seed.
TIME_PREFIX = "time/"


class MetricLog:
    """Appends records to a file and can take back those of unfinished work.

    The file is read once: nobody else writes to it while the log is open.
    """

    def __init__(self, path: Path):
        """Open a log; the file is made with the first record."""
        self._path = path
        self._records: list[dict[str, Any]] | None = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it is on the disk when this returns."""
        records = self.records()
        text = json.dumps({k: _plain(v) for k, v in record.items()}, allow_nan=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._records = [*records, json.loads(text)]

    def records(self) -> list[dict[str, Any]]:
        """Return all records; a last line that was cut by a crash is left out.

        Raises:
          UserError: another line is damaged.
        """
        if self._records is None:
            self._records = self._read()
        return list(self._records)

    def keep_before(self, epoch: int) -> None:
        """Drop the records of this and later epochs, and a cut last line."""
        kept = [record for record in self.records() if record["epoch"] < epoch]
        files.write_text(self._path, "".join(json.dumps(r) + "\n" for r in kept))
        self._records = kept

    def missing_before(self, epoch: int) -> list[int]:
        """Return the epochs before this one that have no record."""
        found = {record["epoch"] for record in self.records()}
        return sorted(set(range(epoch)) - found)

    def _read(self) -> list[dict[str, Any]]:
        if not self._path.is_file():
            return []
        lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
        try:
            # What follows the last line end was never finished.
            records = [json.loads(line) for line in lines[:-1] if line]
            if not all(isinstance(record["epoch"], int) for record in records):
                raise ValueError("an epoch is no number")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"{str(self._path)!r} is damaged ({type(error).__name__}: {error}); "
                "bring it back from a copy, or delete it to continue without the "
                "records so far"
            ) from error
        return records


def means(
    metrics: MetricSums, phases: Mapping[str, int], quantities: Sequence[str]
) -> dict[str, np.float32]:
    """Return ``<phase>/<quantity>``, means over the steps summed, from the device.

    Args:
      metrics: sums of an epoch.
      phases: name and row of every phase, in the order wanted.
      quantities: names of the columns.
    """
    host = jax.device_get(metrics)
    return {
        f"{name}/{quantity}": np.float32(host.sums[phase, place] / host.count)
        for name, phase in phases.items()
        for place, quantity in enumerate(quantities)
    }


def _plain(value: Any) -> Any:
    """Return a value JSON knows; float32 as the shortest text that means it."""
    if isinstance(value, float | np.floating):
        number = float(str(value)) if isinstance(value, np.floating) else value
        return number if math.isfinite(number) else None
    return value.item() if isinstance(value, np.generic) else value
