"""From a config and images to the compiled functions of one training."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from adarts_jax.bilevel.optimizers import make_optimizers
from adarts_jax.data import augment, photos
from adarts_jax.data.images import ImageData, center_crop
from adarts_jax.engine import compilation, devices, epoch, evaluation, retrain_epoch
from adarts_jax.engine.epoch import Batching, EpochData, Training
from adarts_jax.engine.evaluation import Evaluator, Normalization
from adarts_jax.engine.pacing import Advance
from adarts_jax.engine.retrain_epoch import RetrainPace
from adarts_jax.engine.retrain_setup import Start
from adarts_jax.networks.derived_network import (
    DerivedNetwork,
    init_variables,
)
from adarts_jax.retrain_config import RetrainConfig
from adarts_jax.training.loss import mix_batch
from adarts_jax.training.retrain_step import QUANTITIES, init_state, retrain_step

# Purpose of a key, next to those of `epoch`.
_WEIGHTS = 2


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is trained, made for the data.

    Attributes:
      network: derived network.
      optimizer: of its weights.
      keep_mean: whether a running mean of the weights is kept.
      image_shape: of what the network sees.
      batching: how batches are made.
      update: step on a batch.
      mix: images and labels -> images and targets.
      precision: of products, a name JAX knows.
    """

    network: DerivedNetwork
    optimizer: optax.GradientTransformation
    keep_mean: bool
    image_shape: tuple[int, int, int]
    batching: Batching
    update: retrain_epoch.Update
    mix: retrain_epoch.Mix
    precision: str


@dataclasses.dataclass(frozen=True)
class RetrainProgram:
    """The compiled functions.

    Attributes:
      program: takes state (given away), data, order, pace, and, unless the host loops,
        how many steps to take.
      draw_order: data and epoch -> batches of the epoch.
      is_host_loop: whether each call is a single step.
    """

    program: compilation.Program
    draw_order: Callable[..., Any]
    is_host_loop: bool

    def advance(self, data: EpochData, number: int, pace: RetrainPace) -> Advance:
        """Return the function that advances within an epoch.

        Args:
          data: on the device.
          number: of the epoch.
          pace: of the epoch, on the host.
        """
        order = self.draw_order(data, jax.device_put(np.int32(number)))
        on_device = jax.device_put(pace)

        def advance(training: Training, steps: int) -> Training:
            if not self.is_host_loop:
                times = jax.device_put(np.int32(steps))
                return self.program.call(training, data, order, on_device, times)
            for _ in range(steps):
                training = self.program.call(training, data, order, on_device)
            return training

        return advance


def make_problem(config: RetrainConfig, start: Start) -> Problem:
    """Build optimizer, batching and step for the data of a training."""
    optimizer = make_optimizers(
        momentum=config.weights.momentum,
        weight_decay=config.weights.weight_decay,
        gradient_clip=config.weights.gradient_clip,
    ).weight
    batching = Batching(
        batch_size=config.batch_size,
        steps_per_epoch=len(start.weight_indices) // config.batch_size,
        transform=make_transform(config, start),
    )
    step = partial(
        retrain_step,
        network=start.network,
        optimizer=optimizer,
        auxiliary_weight=config.weights.auxiliary_weight,
        mean_decay=config.weights.ema_decay,
    )
    mix = partial(
        mix_batch,
        num_classes=start.data.num_classes,
        smoothing=config.weights.label_smoothing,
        cutmix_probability=config.data.cutmix_probability,
        cutmix_beta=config.data.cutmix_beta,
    )
    return Problem(
        network=start.network,
        optimizer=optimizer,
        keep_mean=config.weights.ema_decay is not None,
        image_shape=start.image_shape,
        batching=batching,
        update=step if config.network.drop_path_rate else _without_drop_path(step),
        mix=mix,
        precision="highest" if config.network.precision == "float32" else "default",
    )


def make_transform(config: RetrainConfig, start: Start) -> epoch.Transform:
    """Return what happens to the pixels of a training batch."""
    mean, std = start.statistics
    flip, cutout_size = config.data.flip, config.data.cutout_size
    common = {"flip": flip, "cutout_size": cutout_size, "mean": mean, "std": std}
    if not config.data.crop_size:
        return partial(augment.augment, pad=config.data.pad, **common)
    return partial(
        photos.augment_photos,
        crop_size=config.data.crop_size,
        color_jitter=config.data.color_jitter,
        **common,
    )


def put_data(start: Start, key: PRNGKeyArray) -> EpochData:
    """Put the images that train the weights on the device, and no others."""
    chosen = start.weight_indices
    return jax.device_put(
        EpochData(
            images=start.data.images[chosen],
            labels=start.data.labels[chosen],
            weight_indices=np.arange(len(chosen), dtype=np.int32),
            key=key,
        )
    )


def make_init(problem: Problem) -> Callable[[PRNGKeyArray], Training]:
    """Return the function from the root key to the first state."""

    def init(key: PRNGKeyArray) -> Training:
        to_weights = jax.random.fold_in(key, _WEIGHTS)
        variables = init_variables(problem.network, to_weights, problem.image_shape)
        state = init_state(variables, problem.optimizer, keep_mean=problem.keep_mean)
        return Training(
            state, epoch.zero_metrics(retrain_epoch.NUM_PHASES, len(QUANTITIES))
        )

    return init


def compile_retrain(
    problem: Problem, template: Training, data: EpochData
) -> RetrainProgram:
    """Compile a step, or a loop over any number of steps.

    Args:
      problem: what is trained.
      template: shapes and types of the state.
      data: on the device.
    """
    is_host_loop = devices.loops_on_the_host()
    function = partial(
        retrain_epoch.train_step if is_host_loop else retrain_epoch.train_steps,
        update=problem.update,
        batching=problem.batching,
        mix=problem.mix,
    )
    draw_order = jax.jit(partial(epoch.draw_order, batching=problem.batching))
    number = jax.ShapeDtypeStruct((), jnp.int32)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    with jax.default_matmul_precision(problem.precision):
        program = compilation.compile_ahead(
            function,
            template,
            data,
            jax.eval_shape(draw_order, data, number),
            RetrainPace(rate, rate),
            *([] if is_host_loop else [number]),
            donate_argnums=(0,),
        )
    return RetrainProgram(program, draw_order, is_host_loop)


def compile_test(
    problem: Problem,
    variables: PyTree,
    *,
    batch_size: int,
    start: Start,
    tested: Mapping[str, ImageData],
) -> Evaluator:
    """Compile the network for testing, one program for all splits.

    In float32 whatever the training, as finished models are evaluated: so that the log
    and `train.evaluate` agree.

    Args:
      problem: what is trained.
      variables: arrays, or their shapes and types.
      batch_size: images per call; cut down to the smallest split.
      start: normalisation.
      tested: see ``tested_data``.
    """
    mean, std = start.statistics
    size = min([batch_size, *map(len, tested.values())])
    images = np.broadcast_to(np.uint8(0), (size, *problem.image_shape))
    with jax.default_matmul_precision(problem.precision):
        return evaluation.compile_evaluator(
            problem.network.clone(dtype=jnp.float32, remat=False),
            variables,
            images,
            batch_size=size,
            normalization=Normalization(mean, std),
        )


def tested_data(start: Start) -> dict[str, ImageData]:
    """Return the images that are tested, by the name of their split.

    Of images that are larger than what the network sees, the centre.
    """
    found = {}
    if len(start.held_out_indices):
        chosen = start.held_out_indices
        found["held_out"] = dataclasses.replace(
            start.data,
            images=start.data.images[chosen],
            labels=start.data.labels[chosen],
        )
    if start.test is not None:
        found["test"] = start.test
    size = start.image_shape[:2]
    return {name: center_crop(data, size) for name, data in found.items()}


def _without_drop_path(step: Callable[..., Any]) -> retrain_epoch.Update:
    """Leave drop path out of the program, whatever the traced rate."""

    def update(
        state: PyTree, batch: Any, key: PRNGKeyArray, *, learning_rate: Any, **_: Any
    ) -> Any:
        return step(state, batch, key, learning_rate=learning_rate, drop_path_rate=0.0)

    return update
