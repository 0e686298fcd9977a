"""What is measured by ``benchmarks.search_step``: one builder per implementation."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import numpy as np

from benchmarks.timing import Record

BOTH_STEPS = "architecture_and_weight_step"
WEIGHT_STEP = "weight_step"
Program = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Setting:
    """One size of the search network and how often to repeat its steps."""

    init_channels: int
    num_cells: int
    batch_size: int
    image_size: int
    image_channels: int
    rounds: int
    repetitions: int
    num_classes: int = 10


def digits_setting() -> Setting:
    """Return the size of a search without any option, on the embedded 8x8 images."""
    from adarts_jax.config import SearchConfig

    config = SearchConfig()
    size = (config.network.init_channels, config.network.num_cells, config.batch_size)
    return Setting(*size, image_size=8, image_channels=1, rounds=7, repetitions=10)


SETTINGS: dict[str, Callable[[], Setting]] = {
    "digits": digits_setting,
    "small": lambda: Setting(8, 4, 32, 32, 3, rounds=7, repetitions=3),
    "full": lambda: Setting(16, 8, 64, 32, 3, rounds=3, repetitions=1),
}


def random_batches(setting: Setting) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a weight batch and an architecture batch: NHWC float32, int32 labels."""
    random = np.random.default_rng(0)
    side, channels = setting.image_size, setting.image_channels
    shape = (setting.batch_size, side, side, channels)
    return [
        (
            random.standard_normal(shape, np.float32),
            random.integers(0, setting.num_classes, shape[:1], np.int32),
        )
        for _ in range(2)
    ]


def torch_worker(setting: Setting) -> tuple[Record, dict[str, Program]]:
    """Build the PyTorch search network and its two programs."""
    import torch

    from benchmarks.torch_reference import bilevel, search_network

    start = time.perf_counter()
    torch.manual_seed(0)
    network = search_network.SearchNetwork(
        setting.init_channels,
        setting.num_cells,
        setting.num_classes,
        image_channels=setting.image_channels,
    ).train()
    arch = search_network.random_architecture()
    weights = bilevel.weight_optimizer(network)
    alphas = bilevel.architecture_optimizer(arch)
    weight_batch, arch_batch = (
        (
            torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(y).long(),
        )
        for x, y in random_batches(setting)
    )

    def weight_step() -> None:
        bilevel.weight_step(network, arch, weights, *weight_batch)

    def both_steps() -> None:
        bilevel.architecture_step(network, arch, alphas, *arch_batch)
        weight_step()

    setup = {
        "versions": {"torch": torch.__version__},
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "build_seconds": time.perf_counter() - start,
        "num_parameters": sum(p.numel() for p in network.parameters()),
    }
    return setup, {BOTH_STEPS: both_steps, WEIGHT_STEP: weight_step}


def jax_worker(setting: Setting) -> tuple[Record, dict[str, Program]]:
    """Compile the search phase of this library, as the engine does on this machine.

    One executable serves both steps and both measurements.
    """
    import jax
    import jax.numpy as jnp

    import adarts_jax
    from adarts_jax.bilevel import optimizers, steps
    from adarts_jax.engine import devices

    start = time.perf_counter()
    network = adarts_jax.search_network(
        "alpha_adarts",
        init_channels=setting.init_channels,
        num_cells=setting.num_cells,
        num_classes=setting.num_classes,
    )
    arch = adarts_jax.init_architecture(
        "alpha_adarts", jax.random.key(0), initialization="plain"
    )
    rules = optimizers.make_optimizers()
    image_shape = (setting.image_size, setting.image_size, setting.image_channels)
    initialize = partial(
        steps.init_state, network, arch, rules, image_shape=image_shape
    )
    initialized = devices.compile_quickly(
        jax.jit(lambda key: initialize(key=key)).trace(jax.random.key(1))
    )
    state = jax.block_until_ready(initialized(jax.random.key(1)))
    init_seconds = time.perf_counter() - start
    phase = partial(
        steps.search_phase,
        network=network,
        optimizers=rules,
        weight_learning_rate=0.025,
        architecture_learning_rate=6e-4,
    )
    weight_batch, architecture_batch = jax.tree.map(
        jnp.asarray, random_batches(setting)
    )
    numbers = [jnp.int32(number) for number in (steps.ARCHITECTURE, steps.WEIGHT)]
    batches = (architecture_batch, weight_batch)
    cpu = time.process_time()
    program = devices.compile_ahead(
        jax.jit(phase, donate_argnums=0), state, weight_batch, numbers[0]
    )
    compile_cpu_seconds = time.process_time() - cpu
    phases = {BOTH_STEPS: (0, 1), WEIGHT_STEP: (1,)}

    def run(name: str) -> None:
        nonlocal state
        for index in phases[name]:
            state, values = program.call(state, batches[index], numbers[index])
        jax.block_until_ready((state, values))

    memory = program.memory_bytes
    setup = {
        "versions": {
            package: version(package) for package in ("jax", "jaxlib", "flax")
        },
        "device": jax.devices()[0].device_kind,
        "init_seconds": init_seconds,
        "compile_seconds": program.compile_seconds,
        "compile_cpu_seconds": compile_cpu_seconds,
        "predicted_mib": memory / 2**20 if memory else None,
        "num_parameters": sum(x.size for x in jax.tree.leaves(state.params)),
    }
    return setup, {name: partial(run, name) for name in phases}


WORKERS = {"torch": torch_worker, "jax": jax_worker}
