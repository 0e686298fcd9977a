"""Should equal cells share one loop? Compile and run seconds of a loop and of a row.

    python -m benchmarks.equal_cells

Four equal cells of the alpha-ADARTS network, forward and gradient, once as ``nn.scan``
over stacked weights and once unrolled. The answer was no on CPU: inside a loop XLA
computes the weight gradient of a depthwise convolution without its fast kernel.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from adarts_jax.networks.derived_cell import DerivedCell
from adarts_jax.space.genotype import Entry
from adarts_jax.space.published import PUBLISHED

CHANNELS, SIDE, BATCH, CELLS, REPETITIONS = 16, 16, 16, 4, 5
GENOTYPE = PUBLISHED["alpha_adarts"]
CONTENTS = {
    "whole cell": (GENOTYPE.normal, GENOTYPE.normal_concat),
    "sep_conv_3x3": ((Entry("sep_conv_3x3", 0), Entry("sep_conv_3x3", 1)), (2,)),
    "max_pool_3x3": ((Entry("max_pool_3x3", 0), Entry("max_pool_3x3", 1)), (2,)),
}


class EqualCells(nn.Module):
    """Cells with stacked weights; ``unroll`` of them per turn of the loop."""

    entries: tuple[Entry, ...]
    concat: tuple[int, ...]
    unroll: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply all cells."""
        cell = DerivedCell(self.entries, self.concat, CHANNELS, train=True)
        loop = nn.scan(
            lambda cell, states, _: ((states[1], cell(*states)), None),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=CELLS,
            unroll=self.unroll,
        )
        return loop(cell, (x, x), None)[0][1]


def measure(network: EqualCells) -> tuple[float, float, float]:
    """Return CPU seconds to compile, median wall and CPU seconds of a gradient."""
    width = CHANNELS * len(network.concat)
    shape = (BATCH, SIDE, SIDE, width)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))
    variables = jax.jit(network.init)(jax.random.key(0), x)

    def loss(params):
        full = variables | {"params": params}
        y, _ = network.apply(full, x, mutable=["batch_stats"])
        return jnp.sum(y**2)

    lowered = jax.jit(jax.grad(loss)).lower(variables["params"])
    start = time.process_time()
    compiled = lowered.compile()
    compile_seconds = time.process_time() - start
    jax.block_until_ready(compiled(variables["params"]))
    start, seconds = time.process_time(), []
    for _ in range(REPETITIONS):
        wall = time.perf_counter()
        jax.block_until_ready(compiled(variables["params"]))
        seconds.append(time.perf_counter() - wall)
    cpu = (time.process_time() - start) / REPETITIONS
    return compile_seconds, float(np.median(seconds)), cpu


def main() -> None:
    """Print one line per content and form."""
    jax.config.update("jax_enable_compilation_cache", False)  # noqa: FBT003
    for name, (entries, concat) in CONTENTS.items():
        for form, unroll in (("loop", 1), ("unrolled", CELLS)):
            compiled, wall, cpu = measure(EqualCells(entries, concat, unroll))
            print(
                f"{name:13s} {form:9s} compile {compiled:5.1f} CPU s, gradient"
                f" {wall:.4f} s ({cpu:.4f} CPU s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
