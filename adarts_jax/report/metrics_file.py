"""Read ``metrics.jsonl`` and arrange it by epoch. Knows no quantity by name."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adarts_jax.errors import UserError

Record = Mapping[str, Any]

_MOST_EPOCHS = 10**9
_LARGEST = 1e300  # beyond it the differences of values, which axes need, overflow


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read the records of a ``metrics.jsonl``.

    A last line that was cut off, by a crash or because the run is writing it right
    now, is left out.

    Args:
      path: the file.

    Returns:
      One dictionary per line, in order.

    Raises:
      UserError: a line other than the last is not a JSON object; names the line.
      FileNotFoundError: there is no such file.
    """
    lines = Path(path).read_text("utf-8", errors="replace").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise UserError(
                f"{path}, line {number}: {error}; remove or restore that line"
            ) from None
        records.append(record)
    return records


def epoch_series(
    records: Sequence[Record],
) -> tuple[list[int], dict[str, list[float]]]:
    """Turn records into the epochs seen and, per quantity, one value per epoch.

    >>> epoch_series([{"epoch": 0, "loss": 2.0}, {"epoch": 1, "loss": None}])
    ([0, 1], {'loss': [2.0, nan]})
    """
    merged: dict[int, dict[str, float]] = {}
    for record in records:
        epoch = record.get("epoch")
        if isinstance(epoch, int) and 0 <= epoch < _MOST_EPOCHS:
            merged.setdefault(epoch, {}).update(
                {key: _number(value) for key, value in record.items()}
            )
    epochs = sorted(merged)
    keys = dict.fromkeys(key for epoch in epochs for key in merged[epoch])
    series = {key: [merged[e].get(key, math.nan) for e in epochs] for key in keys}
    return epochs, {key: values for key, values in series.items() if key != "epoch"}


def _number(value: object) -> float:
    """Return a finite number, or not-a-number for everything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < _LARGEST else math.nan
    return math.nan
