"""Seconds and memory of a search step: this library beside plain PyTorch.

    python -m benchmarks.search_step --setting small
    python -m benchmarks.search_step --setting full --rounds 3 --repetitions 1
    python -m benchmarks.search_step --only torch torch-channels-last torch-bf16
    python -m benchmarks.search_step --only torch jax jax-second-start

Each setting is one alpha-ADARTS search network on random images. Measured are the
architecture and weight step together, the weight step alone (what warm-up epochs run),
the seconds to compile, and the peak memory, on a first start and (``jax-second-start``)
with the compiled program read from the disk. Result: ``benchmarks/results/``.
"""

from benchmarks import plain_torch, side_by_side
from benchmarks.search_step_workers import (
    BOTH_STEPS,
    SETTINGS,
    WEIGHT_STEP,
    jax_worker,
    second_start_worker,
    torch_worker,
)

BENCHMARK = side_by_side.Benchmark(
    "search_step",
    "Seconds and memory of a search step, beside plain PyTorch.",
    SETTINGS,
    {
        **plain_torch.rows(torch_worker),
        "jax": jax_worker,
        "jax-second-start": second_start_worker,
    },
    (BOTH_STEPS, WEIGHT_STEP),
    default_settings=("digits", "small", "full"),
    default_workers=("torch", "jax"),
)

if __name__ == "__main__":
    side_by_side.main(BENCHMARK)
