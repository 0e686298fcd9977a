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
    """Compile the search step of this library; both programs are one executable."""
    import jax
    import jax.numpy as jnp

    import adarts_jax
    from adarts_jax.bilevel import optimizers, steps

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
    state = jax.block_until_ready(jax.jit(initialize)(key=jax.random.key(1)))
    built = time.perf_counter()
    step = partial(
        steps.search_step,
        network=network,
        optimizers=rules,
        weight_learning_rate=0.025,
        architecture_learning_rate=6e-4,
    )
    batches = jax.tree.map(jnp.asarray, random_batches(setting))
    update = {BOTH_STEPS: jnp.bool_(1), WEIGHT_STEP: jnp.bool_(0)}
    lowered = jax.jit(step, donate_argnums=0).lower(
        state, *batches, update_architecture=update[BOTH_STEPS]
    )
    traced, cpu = time.perf_counter(), time.process_time()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - traced
    compile_cpu_seconds = time.process_time() - cpu

    def run(program: str) -> None:
        nonlocal state
        state, metrics = compiled(state, *batches, update_architecture=update[program])
        jax.block_until_ready((state, metrics))

    memory = compiled.memory_analysis()
    setup = {
        "versions": {
            package: version(package) for package in ("jax", "jaxlib", "flax")
        },
        "device": jax.devices()[0].device_kind,
        "init_seconds": built - start,
        "trace_seconds": traced - built,
        "compile_seconds": compile_seconds,
        "compile_cpu_seconds": compile_cpu_seconds,
        "temporary_mib": memory.temp_size_in_bytes / 2**20 if memory else None,
        "num_parameters": sum(x.size for x in jax.tree.leaves(state.params)),
    }
    return setup, {program: partial(run, program) for program in update}


WORKERS = {"torch": torch_worker, "jax": jax_worker}
