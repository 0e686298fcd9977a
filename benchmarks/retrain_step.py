"""Seconds, memory and compile time of a retraining step, beside plain PyTorch.

    python -m benchmarks.retrain_step --setting small
    python -m benchmarks.retrain_step --setting full --only torch jax

Each setting is the derived network of alpha-ADARTS with clipped SGD on random images,
with auxiliary head and drop path except for digits. Measured are a training step, the
evaluation of a batch, the seconds to compile, and the peak memory. Result:
``benchmarks/results/``.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import floor, ours, plain_torch, side_by_side
from benchmarks.plain_torch import Variant
from benchmarks.side_by_side import Built
from benchmarks.timing import Record

TRAIN, EVALUATE = "train_step", "evaluation"
LEARNING_RATE, AUX_WEIGHT, CLIP = 0.025, 0.4, 5.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """One size of the derived network and how often to repeat its programs."""

    init_channels: int
    num_cells: int
    batch_size: int
    rounds: int
    repetitions: int
    image_shape: tuple[int, int, int] = (32, 32, 3)
    auxiliary: bool = True
    drop_path_rate: float = 0.2
    num_classes: int = 10
    genotype: str = "alpha_adarts"


SETTINGS = {
    "tiny": Setting(4, 3, 8, rounds=3, repetitions=3),
    # configs/retrain_digits.toml, the training without any option
    "digits": Setting(
        16,
        5,
        32,
        rounds=7,
        repetitions=10,
        image_shape=(8, 8, 1),
        auxiliary=False,
        drop_path_rate=0.0,
    ),
    "small": Setting(16, 8, 32, rounds=7, repetitions=2),
    "full": Setting(36, 20, 96, rounds=3, repetitions=1),
}


def random_batch(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Return NHWC float32 images and int32 labels."""
    random = np.random.default_rng(0)
    shape = (setting.batch_size, *setting.image_shape)
    labels = random.integers(0, setting.num_classes, shape[:1], np.int32)
    return random.standard_normal(shape, np.float32), labels


def torch_worker(setting: Setting, variant: Variant) -> Built:
    """Build the PyTorch network and its programs."""
    import torch
    from torch.nn import functional

    from benchmarks.torch_reference import bilevel

    start = time.perf_counter()
    device = plain_torch.begin(variant)
    network = plain_torch.place(_torch_network(setting), variant, device)
    optimizer = bilevel.weight_optimizer(network, learning_rate=LEARNING_RATE)
    images, labels = plain_torch.put_batch(random_batch(setting), variant, device)

    def train_step() -> None:
        logits, auxiliary = network.train()(images)
        loss = functional.cross_entropy(logits, labels)
        if auxiliary is not None:
            loss = loss + AUX_WEIGHT * functional.cross_entropy(auxiliary, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()

    def evaluate() -> None:
        with torch.no_grad():
            network.eval()(images)

    setup = {
        "build_seconds": time.perf_counter() - start,
        "num_parameters": sum(p.numel() for p in network.parameters()),
    }
    programs = {TRAIN: train_step, EVALUATE: evaluate}
    return plain_torch.finish(setup, programs, variant, device)


def _torch_network(setting: Setting) -> Any:
    from adarts_jax.space.published import PUBLISHED
    from adarts_jax.torch_reference import derived_network

    published = PUBLISHED[setting.genotype]
    genotype = derived_network.Genotype(
        normal=[entry[:2] for entry in published.normal],
        normal_concat=published.normal_concat,
        reduce=[entry[:2] for entry in published.reduce],
        reduce_concat=published.reduce_concat,
    )
    network = derived_network.CifarNetwork(
        genotype,
        setting.init_channels,
        setting.num_cells,
        setting.num_classes,
        auxiliary=setting.auxiliary,
        image_channels=setting.image_shape[2],
    )
    network.drop_path_prob = setting.drop_path_rate
    return network


def jax_worker(
    setting: Setting, products: str = floor.DEFAULT, **options: Any
) -> Built:
    """Compile the step of this library as the engine does; network with ``options``."""
    import jax
    import jax.numpy as jnp

    from adarts_jax.bilevel.optimizers import make_optimizers

    ours.begin()
    start = time.perf_counter()
    network = _our_network(setting, **options)
    optimizer = make_optimizers(gradient_clip=CLIP).weight
    state = _our_first_state(network, optimizer, setting.image_shape)
    init_seconds = time.perf_counter() - start
    given = (
        *_our_batch(setting),
        jax.random.key(1),
        jnp.float32(setting.drop_path_rate),
    )
    step = _our_step(network, optimizer, drops=setting.drop_path_rate > 0)
    train = ours.compile_ahead(step, state, *given, donate=True)
    evaluate = ours.compile_ahead(
        partial(network.apply, train=False), state.variables, given[0]
    )

    def run_train() -> None:
        nonlocal state
        state, values = train.call(state, *given)
        jax.block_until_ready((state, values))

    def run_evaluate() -> None:
        jax.block_until_ready(evaluate.call(state.variables, given[0]))

    setup = {
        "init_seconds": init_seconds,
        "num_parameters": sum(
            x.size for x in jax.tree.leaves(state.variables["params"])
        ),
        **_our_costs(train, evaluate, products),
    }
    programs = {TRAIN: run_train, EVALUATE: run_evaluate}
    return Built(setup, programs, ours.device_peak_mib)


def _our_costs(train: Any, evaluate: Any, products: str) -> Record:
    evaluation = ours.cost_of_compiling([evaluate]).items()
    return {
        **ours.about(),
        "work": {
            TRAIN: floor.count([train.call], products=products),
            EVALUATE: floor.count([evaluate.call], products=products),
        },
        **ours.cost_of_compiling([train]),
        **{f"evaluation_{name}": value for name, value in evaluation},
    }


def _our_network(setting: Setting, **options: Any) -> Any:
    from adarts_jax.networks.derived_network import derived_network
    from adarts_jax.space.published import PUBLISHED

    return derived_network(
        PUBLISHED[setting.genotype],
        image_size=setting.image_shape[:2],
        init_channels=setting.init_channels,
        num_cells=setting.num_cells,
        num_classes=setting.num_classes,
        auxiliary=setting.auxiliary,
        **options,
    )


def _our_first_state(
    network: Any, optimizer: Any, image_shape: tuple[int, int, int]
) -> Any:
    import jax

    from adarts_jax.networks.derived_network import init_variables
    from adarts_jax.training.retrain_step import init_state

    def draw(key: Any) -> Any:
        variables = init_variables(network, key, image_shape)
        return init_state(variables, optimizer, keep_mean=False)

    return ours.first_state(draw, jax.random.key(0))


def _our_batch(setting: Setting) -> tuple[Any, Any, Any]:
    """Return images, labels and targets on the device."""
    import jax.numpy as jnp

    from adarts_jax.training.loss import smooth_targets

    images, labels = map(jnp.asarray, random_batch(setting))
    return images, labels, smooth_targets(labels, num_classes=setting.num_classes)


def _our_step(network: Any, optimizer: Any, *, drops: bool) -> Callable[..., Any]:
    """Return the training step as a function of arrays alone.

    As in the engine, drop path is no part of a program that does not use it.
    """
    from adarts_jax.training.retrain_step import retrain_step

    def step(
        state: Any, images: Any, labels: Any, targets: Any, key: Any, rate: Any
    ) -> Any:
        return retrain_step(
            state,
            (images, labels, targets),
            key,
            network=network,
            optimizer=optimizer,
            auxiliary_weight=AUX_WEIGHT,
            mean_decay=None,
            learning_rate=LEARNING_RATE,
            drop_path_rate=rate if drops else 0.0,
        )

    return step


def bfloat16_worker(setting: Setting) -> Built:
    """Compute in bfloat16; parameters and statistics stay float32."""
    import jax.numpy as jnp

    return jax_worker(setting, floor.BFLOAT16, dtype=jnp.bfloat16)


def remat_worker(setting: Setting) -> Built:
    """Compute the inside of every cell twice, to need less memory."""
    return jax_worker(setting, remat=True)


BENCHMARK = side_by_side.Benchmark(
    "retrain_step",
    "Seconds and memory of a retraining step, beside plain PyTorch.",
    SETTINGS,
    {
        **plain_torch.rows(torch_worker),
        "jax": jax_worker,
        "jax-bf16": bfloat16_worker,
        "jax-remat": remat_worker,
    },
    (TRAIN, EVALUATE),
    default_settings=("digits", "small", "full"),
    default_workers=("torch", "jax"),
)

if __name__ == "__main__":
    side_by_side.main(BENCHMARK)
