"""The two products of the second order: seconds per step, and error of the gradient.

    python -m benchmarks.hessian
    python -m benchmarks.hessian --init-channels 16 --num-cells 8 --steps 2

DARTS on the embedded digits. Both are compared with the exact product in float64, at
the first state and after some search steps: errors of the implicit term
``grad2_aw L_train(w, a) v`` and of the whole architecture gradient, each in units of
its norm.
"""

import argparse
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adarts_jax.bilevel import steps, unrolled
from adarts_jax.bilevel.optimizers import make_optimizers
from adarts_jax.data import sources
from adarts_jax.engine import compilation
from adarts_jax.methods import METHODS

RATES = {"weight_learning_rate": 0.025, "architecture_learning_rate": 3e-4}
BATCH = 32


class Stepper:
    """Compiled phases of both products in one precision."""

    def __init__(self, dtype: Any, parts: Mapping[str, Any], state: Any):
        """Compile for the shapes of a state."""
        self.dtype = dtype
        with jax.enable_x64(dtype == jnp.float64):
            inputs = self._cast(state), self._cast(draw_batch(0)), jnp.int32(0)
            self.update, self.product = (
                compilation.compile_ahead(partial(function, **RATES, **parts), *inputs)
                for function in (unrolled.unrolled_phase, unrolled.product_phase)
            )

    def step(self, hessian: Any, state: Any, number: int) -> tuple[Any, Any, Any]:
        """Take one search step.

        Returns:
          The state, the gradient of the architecture at the virtual weights, and that
          with the implicit term.
        """
        found, phases = {}, unrolled.PHASES[hessian]
        with jax.enable_x64(self.dtype == jnp.float64):
            state = self._cast(state)
            for phase in phases:
                found[phase] = state.unrolling.direct  # as the phase finds it
                batch = draw_batch(2 * number + (phase == steps.ARCHITECTURE))
                program = self.product if phase == unrolled.PRODUCT else self.update
                state, _ = program.call(state, self._cast(batch), jnp.int32(phase))
            direct = found[phases[2]]  # the phase behind that of the architecture
            return jax.block_until_ready(state), direct, found[steps.WEIGHT]

    def _cast(self, tree: Any) -> Any:
        def convert(leaf: Any) -> Any:
            is_real = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
            return jnp.asarray(leaf, self.dtype if is_real else jnp.int32)

        return jax.tree.map(convert, tree)


def draw_batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return digits, shuffled by the seed."""
    data = sources.load("digits")
    chosen = np.random.RandomState(seed).permutation(len(data))[:BATCH]
    return data.images[chosen] / np.float32(127.5) - 1, data.labels[chosen]


def first_state(parts: Mapping[str, Any]) -> Any:
    """Return the state of a search of second order."""
    arch = METHODS["darts"].init_architecture(jax.random.key(0))
    state = steps.init_state(
        **parts, arch=arch, image_shape=(8, 8, 1), key=jax.random.key(1)
    )
    return unrolled.begin_unrolling(state)


def difference(found: Any, wanted: Any) -> float:
    """Return how far two gradients are apart, in units of the second one's norm."""
    vectors = [
        np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in tree])
        for tree in (jax.tree.leaves(found), jax.tree.leaves(wanted))
    ]
    return float(np.linalg.norm(np.subtract(*vectors)) / np.linalg.norm(vectors[1]))


def implicit(direct: Any, gradient: Any) -> Any:
    """Return the product, without the learning rate it is multiplied by."""
    rate = RATES["weight_learning_rate"]
    return jax.tree.map(
        lambda d, g: (np.float64(d) - np.float64(g)) / rate, direct, gradient
    )


def compare(single: Stepper, double: Stepper, state: Any, number: int) -> None:
    """Print the errors of both products at a state."""
    _, direct, gradient = double.step("exact", state, number)
    wanted = implicit(direct, gradient)
    for hessian in unrolled.PHASES:
        _, near, found = single.step(hessian, state, number)
        print(
            f"step {number:3d}  {hessian:18s} implicit term"
            f" {difference(implicit(near, found), wanted):.1e}, whole gradient"
            f" {difference(found, gradient):.1e}",
            flush=True,
        )


def main() -> None:
    """Compare both products, and time them in turn."""
    parser = argparse.ArgumentParser(description="Products of the second order.")
    parser.add_argument("--init-channels", type=int, default=8)
    parser.add_argument("--num-cells", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="before the last look")
    args = parser.parse_args()
    network = METHODS["darts"].make_network(
        init_channels=args.init_channels, num_cells=args.num_cells
    )
    parts = {"network": network, "optimizers": make_optimizers()}
    state = first_state(parts)
    single, double = (Stepper(t, parts, state) for t in (jnp.float32, jnp.float64))
    compare(single, double, state, 0)
    seconds: dict[str, list[float]] = {hessian: [] for hessian in unrolled.PHASES}
    for number in range(args.steps):
        for hessian, times in seconds.items():
            start = time.perf_counter()
            after, _, _ = single.step(hessian, state, number)
            times.append(time.perf_counter() - start)
        state = after
    compare(single, double, state, args.steps)
    for hessian, times in seconds.items():
        low, high = min(times), max(times)
        print(
            f"{hessian:18s} {np.median(times):.3f} s per step ({low:.3f} to {high:.3f})"
        )
    for name, program in (("update", single.update), ("product", single.product)):
        print(f"{name:18s} {program.compile_seconds:.0f} s to compile")


if __name__ == "__main__":
    main()
