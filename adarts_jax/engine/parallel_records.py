"""What a run of several searches writes down: each like a run of its own, and the best.

``searches/seed_<s>/`` holds what a single search with that seed would write, all but
checkpoints, manifest and clocks. At the top are the means of the records, and the
genotypes of the best search: that of the highest accuracy on the architecture split,
mean over the steps of the epoch; of equal ones the smallest seed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from adarts_jax.bilevel.steps import ARCHITECTURE, QUANTITIES
from adarts_jax.config import SearchConfig
from adarts_jax.engine import files, parallel_searches
from adarts_jax.engine.epoch import MetricSums
from adarts_jax.engine.metrics import MetricLog
from adarts_jax.engine.run_directory import RunDirectory
from adarts_jax.engine.search_setup import Start

Record = Mapping[str, Any]


def begin(run: RunDirectory, config: SearchConfig, start: Start) -> None:
    """Write the splits of each search, and of several the configs too."""
    places = parallel_searches.places(run, config)
    singles = parallel_searches.single_configs(config)
    for place, single, splits in zip(places, singles, start.splits, strict=True):
        place.path.mkdir(parents=True, exist_ok=True)
        files.replace(place.splits, splits.save)
        if place != run:
            files.write_json(place.config, single.model_dump(mode="json"))


def best_search(sums: Sequence[MetricSums]) -> int:
    """Return which search is the best one after an epoch; the first in a warm-up."""
    accuracy = QUANTITIES.index("accuracy")
    host = [jax.device_get(one.sums) for one in sums]
    return int(np.argmax([one[ARCHITECTURE, accuracy] for one in host]))


def note_epoch(
    run: RunDirectory,
    places: Sequence[RunDirectory],
    records: Sequence[Record],
    sums: Sequence[MetricSums],
    *,
    epoch: int,
    step: int,
) -> Record:
    """Write down what each of several searches measured; return what the run did.

    Args:
      run: the run.
      places: of the searches; their genotypes are written.
      records: of the searches.
      sums: of the searches.
      epoch: number.
      step: steps done.

    Returns:
      The record of a single search, or means.
    """
    if len(places) == 1:
        return records[0]
    for place, record in zip(places, records, strict=True):
        log = MetricLog(place.metrics)
        log.keep_before(epoch)  # a crash may have come between this and the run's
        log.append({"epoch": epoch, "step": step, **record})
    best = places[best_search(sums)].epoch_genotype(epoch)
    top = run.epoch_genotype(epoch)
    top.parent.mkdir(exist_ok=True)
    files.write_text(top, best.read_text(encoding="utf-8"))
    return {
        name: np.float32(np.mean([record[name] for record in records]))
        for name in records[0]
    }
