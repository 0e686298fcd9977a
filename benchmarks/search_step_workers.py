"""What ``search_step`` and ``methods`` measure: one builder per implementation."""

import dataclasses
import multiprocessing
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks import floor, ours, plain_torch, timing
from benchmarks.plain_torch import Variant
from benchmarks.side_by_side import Built

BOTH_STEPS = "architecture_and_weight_step"
WEIGHT_STEP = "weight_step"


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


SETTINGS = {
    # only to see whether a benchmark runs
    "tiny": Setting(4, 3, 4, 8, 1, rounds=1, repetitions=2),
    # a search without any option, on the embedded images
    "digits": Setting(8, 3, 32, 8, 1, rounds=7, repetitions=10),
    "small": Setting(8, 4, 32, 32, 3, rounds=7, repetitions=3),
    "full": Setting(16, 8, 64, 32, 3, rounds=3, repetitions=1),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to search.

    Attributes:
      method: its name.
      hessian: of the second order; None for the first.
      options: of the method.
    """

    method: str
    hessian: Any = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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


def torch_worker(setting: Setting, variant: Variant) -> Built:
    """Build the PyTorch search network and its two programs."""
    from benchmarks.torch_reference import bilevel, search_network

    start = time.perf_counter()
    device = plain_torch.begin(variant)
    network = search_network.SearchNetwork(
        setting.init_channels,
        setting.num_cells,
        setting.num_classes,
        image_channels=setting.image_channels,
    ).train()
    network = plain_torch.place(network, variant, device)
    arch = search_network.Architecture(
        *(
            logits.detach().to(device).requires_grad_()
            for logits in search_network.random_architecture()
        )
    )
    weights = bilevel.weight_optimizer(network)
    alphas = bilevel.architecture_optimizer(arch)
    weight_batch, arch_batch = (
        plain_torch.put_batch(batch, variant, device)
        for batch in random_batches(setting)
    )

    def weight_step() -> None:
        bilevel.weight_step(network, arch, weights, *weight_batch)

    def both_steps() -> None:
        bilevel.architecture_step(network, arch, alphas, *arch_batch)
        weight_step()

    setup = {
        "build_seconds": time.perf_counter() - start,
        "num_parameters": sum(p.numel() for p in network.parameters()),
    }
    programs = {BOTH_STEPS: both_steps, WEIGHT_STEP: weight_step}
    return plain_torch.finish(setup, programs, variant, device)


def jax_worker(setting: Setting, case: Case = Case("alpha_adarts")) -> Built:
    """Compile the phases of a method, as the engine does on this machine.

    One executable serves all steps, but for the products of the exact second order.
    """
    import jax
    import jax.numpy as jnp

    from adarts_jax.bilevel import steps, unrolled

    ours.begin()
    problem = make_problem(case, setting)
    start, key = time.perf_counter(), jax.random.key(1)
    state = ours.first_state(partial(first_state, problem), key)
    init_seconds = time.perf_counter() - start
    batches = jax.tree.map(jnp.asarray, random_batches(setting))
    compiled = _compile_phases(problem, state, batches[0])
    calls = {
        phase: compiled[-1 if phase == unrolled.PRODUCT else 0].call
        for phase in {*problem.phases, steps.WEIGHT}
    }
    numbers = {phase: jnp.int32(phase) for phase in calls}

    def run(phases: tuple[int, ...]) -> None:
        nonlocal state
        for phase in phases:
            batch = batches[phase == steps.ARCHITECTURE]
            state, _ = calls[phase](state, batch, numbers[phase])
        jax.block_until_ready(state)

    phases_of = {BOTH_STEPS: problem.phases, WEIGHT_STEP: (steps.WEIGHT,)}
    setup = {
        **ours.about(),
        "work": {n: floor.count([calls[p] for p in ps]) for n, ps in phases_of.items()},
        **ours.cost_of_compiling(compiled),
        "passes_per_step": len(problem.phases),
        "init_seconds": init_seconds,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "num_architecture": sum(leaf.size for leaf in jax.tree.leaves(state.arch)),
    }
    programs = {name: partial(run, phases) for name, phases in phases_of.items()}
    return Built(setup, programs, ours.device_peak_mib)


def second_start_worker(setting: Setting) -> Built:
    """Build what ``jax_worker`` does, from programs that another process compiled."""
    with tempfile.TemporaryDirectory(prefix="adarts_search_step_") as folder:
        first = multiprocessing.get_context("spawn").Process(
            target=_fill_cache, args=(folder, setting)
        )
        first.start()
        first.join()
        if first.exitcode != 0:
            raise timing.CannotRun(
                f"the process that compiles first ended with status {first.exitcode}: "
                "without its programs this would be a first start"
            )
        _use_cache(folder)
        return jax_worker(setting)


def _fill_cache(folder: str, setting: Setting) -> None:
    _use_cache(folder)
    jax_worker(setting)


def _use_cache(folder: str) -> None:
    import jax

    from adarts_jax.engine import compilation_cache

    jax.config.update("jax_enable_compilation_cache", val=True)
    compilation_cache.use_compilation_cache(folder)


def _compile_phases(problem: Any, state: Any, batch: Any) -> list[Any]:
    """Return the program of all phases, then that of the exact product if needed."""
    import jax.numpy as jnp

    from adarts_jax.engine.search_problem import make_updates

    rates = {"weight_learning_rate": 0.025, "architecture_learning_rate": 6e-4}
    return [
        ours.compile_ahead(
            partial(function, **rates), state, batch, jnp.int32(0), donate=True
        )
        for function in make_updates(problem)
        if function is not None
    ]


def make_problem(case: Case, setting: Setting) -> Any:
    """Return what the engine would search with."""
    from adarts_jax.bilevel.optimizers import make_optimizers
    from adarts_jax.engine.epoch import Batching
    from adarts_jax.engine.search_problem import Problem
    from adarts_jax.methods import METHODS

    method = METHODS[case.method]
    network = method.make_network(
        init_channels=setting.init_channels,
        num_cells=setting.num_cells,
        num_classes=setting.num_classes,
        options={k: v for k, v in case.options.items() if k in method.options},
    )
    side = setting.image_size
    return Problem(
        method,
        network,
        make_optimizers(),
        method.initializations[0],
        (side, side, setting.image_channels),
        Batching(setting.batch_size, 1, lambda key, images: images),
        hessian=case.hessian,
        seed=0 if method.draws(case.options) else None,
    )


def first_state(problem: Any, key: Any) -> Any:
    """Draw the first state of a search."""
    from adarts_jax.bilevel import random_search, steps, unrolled

    state = steps.init_state(
        problem.network,
        problem.method.init_architecture(key),
        problem.optimizers,
        image_shape=problem.image_shape,
        key=key,
    )
    if problem.hessian is not None:
        state = unrolled.begin_unrolling(state)
    if not problem.method.trains_architecture:
        state = random_search.begin_random_search(state)
    return state
