"""How the cost of a search step grows: one size at a time is changed.

    python -m benchmarks.cost_growth --setting small

Rows are the alpha-ADARTS search network of the setting and the same with other
channels, cells, images per batch or pixels. Result: ``benchmarks/results/``.
"""

import dataclasses
from functools import partial

from benchmarks import side_by_side
from benchmarks.search_step_workers import (
    BOTH_STEPS,
    SETTINGS,
    WEIGHT_STEP,
    Setting,
    jax_worker,
)
from benchmarks.side_by_side import Built

# Multiples of a setting's sizes, and cells more than it has.
MULTIPLES = {
    "init_channels": (0.5, 2, 4),
    "batch_size": (0.5, 2, 4),
    "image_size": (0.5, 2),
}
MORE_CELLS = (2, 4, 8)


def build(setting: Setting, *, size: str, multiple: float = 1, more: int = 0) -> Built:
    """Build a search network of which one size differs."""
    value = int(getattr(setting, size) * multiple) + more
    return jax_worker(dataclasses.replace(setting, **{size: value}))


ROWS = {
    "as-it-is": partial(build, size="init_channels"),
    **{
        f"{size}-x{multiple}": partial(build, size=size, multiple=multiple)
        for size, multiples in MULTIPLES.items()
        for multiple in multiples
    },
    **{f"num_cells+{n}": partial(build, size="num_cells", more=n) for n in MORE_CELLS},
}
BENCHMARK = side_by_side.Benchmark(
    "cost_growth",
    "How the cost of a search step grows with the sizes of the network.",
    {name: SETTINGS[name] for name in ("tiny", "small")},
    ROWS,
    (BOTH_STEPS, WEIGHT_STEP),
    default_settings=("small",),
    one_at_a_time=True,
)

if __name__ == "__main__":
    side_by_side.main(BENCHMARK)
