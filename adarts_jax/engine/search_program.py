"""From a config and images to the compiled functions of one search."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import PRNGKeyArray

from adarts_jax.bilevel.optimizers import Optimizers, make_optimizers
from adarts_jax.bilevel.steps import (
    ARCHITECTURE,
    QUANTITIES,
    WEIGHT,
    init_state,
    search_phase,
)
from adarts_jax.config import SearchConfig
from adarts_jax.data import augment
from adarts_jax.engine import devices, epoch, search_epoch
from adarts_jax.engine.epoch import Batching, Training
from adarts_jax.engine.pacing import Advance
from adarts_jax.engine.search_epoch import Pace, SearchData
from adarts_jax.engine.search_setup import Start
from adarts_jax.methods import METHODS, Method
from adarts_jax.methods.method import Initialization

# Purposes of keys, next to those of `epoch`.
_WEIGHTS, _ARCHITECTURE = 2, 3


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is searched: the parts of a method, made for the data.

    Attributes:
      method: description of the method.
      network: search network.
      optimizers: of the weights and of the architecture.
      initialization: of the architecture parameters.
      image_shape: height, width, channels.
      batching: how batches are made.
    """

    method: Method
    network: nn.Module
    optimizers: Optimizers
    initialization: Initialization
    image_shape: tuple[int, int, int]
    batching: Batching


@dataclasses.dataclass(frozen=True)
class SearchProgram:
    """The compiled functions.

    Attributes:
      program: takes state (given away), data, order, pace, and one number: that of the
        phase if the host loops, else how many steps to take.
      draw_order: data and epoch -> batches of the epoch.
      is_host_loop: whether each call is a single phase.
    """

    program: devices.Program
    draw_order: Callable[..., Any]
    is_host_loop: bool

    def advance(self, data: SearchData, number: int, pace: Pace) -> Advance:
        """Return the function that advances within an epoch.

        Args:
          data: on the device.
          number: of the epoch.
          pace: of the epoch, on the host.
        """
        order = self.draw_order(data, jax.device_put(np.int32(number)))
        first = ARCHITECTURE if pace.update_architecture else WEIGHT
        phases = [
            jax.device_put(np.int32(n)) for n in range(first, search_epoch.NUM_PHASES)
        ]
        on_device = jax.device_put(pace)

        def advance(training: Training, steps: int) -> Training:
            numbers = phases * steps
            if not self.is_host_loop:
                numbers = [jax.device_put(np.int32(steps))]
            for number in numbers:
                training = self.program.call(training, data, order, on_device, number)
            return training

        return advance


def make_problem(config: SearchConfig, start: Start) -> Problem:
    """Build network, optimizers and batching for the data of a search."""
    method = METHODS[config.method]
    network = method.make_network(
        init_channels=config.network.init_channels,
        num_cells=config.network.num_cells,
        num_classes=start.data.num_classes,
        channel_divisor=config.network.channel_divisor,
    )
    optimizers = make_optimizers(
        momentum=config.weights.momentum,
        weight_decay=config.weights.weight_decay,
        gradient_clip=config.weights.gradient_clip,
        architecture_betas=config.architecture.betas,
        architecture_weight_decay=config.architecture.weight_decay,
        architecture_gradient_clip=config.architecture.gradient_clip,
    )
    mean, std = start.statistics
    batching = Batching(
        batch_size=config.batch_size,
        steps_per_epoch=len(start.parts.weight_indices) // config.batch_size,
        transform=partial(
            augment.augment,
            pad=config.data.pad,
            flip=config.data.flip,
            cutout_size=config.data.cutout_size,
            mean=mean,
            std=std,
        ),
    )
    return Problem(
        method,
        network,
        optimizers,
        config.architecture.initialization,
        start.data.image_shape,
        batching,
    )


def put_data(start: Start, key: PRNGKeyArray) -> SearchData:
    """Put the images of both splits on the device, and no others."""
    data, splits = start.data, start.parts
    used = np.concatenate([splits.weight_indices, splits.architecture_indices])
    boundary = len(splits.weight_indices)
    places = np.arange(len(used), dtype=np.int32)
    return jax.device_put(
        SearchData(
            images=data.images[used],
            labels=data.labels[used],
            weight_indices=places[:boundary],
            architecture_indices=places[boundary:],
            key=key,
        )
    )


def trace_init(problem: Problem, key: PRNGKeyArray) -> Any:
    """Trace the function from the root key to the first state.

    Returns:
      A ``jax.stages.Traced``: ``out_info`` has shapes and types, ``lower().compile()``
      gives the function.
    """

    def init(key: PRNGKeyArray) -> Training:
        arch = problem.method.init_architecture(
            jax.random.fold_in(key, _ARCHITECTURE),
            initialization=problem.initialization,
        )
        state = init_state(
            problem.network,
            arch,
            problem.optimizers,
            image_shape=problem.image_shape,
            key=jax.random.fold_in(key, _WEIGHTS),
        )
        return Training(
            state, epoch.zero_metrics(search_epoch.NUM_PHASES, len(QUANTITIES))
        )

    return jax.jit(init).trace(key)


def compile_search(
    problem: Problem, template: Training, data: SearchData
) -> SearchProgram:
    """Compile one phase of a step, or a loop over any number of steps.

    Args:
      problem: what is searched.
      template: shapes and types of the state.
      data: on the device.
    """
    update = partial(
        search_phase, network=problem.network, optimizers=problem.optimizers
    )
    is_host_loop = devices.loops_on_the_host()
    function = partial(
        search_epoch.train_phase if is_host_loop else search_epoch.train_steps,
        update=update,
        batching=problem.batching,
    )
    draw_order = jax.jit(partial(epoch.draw_order, batching=problem.batching))
    number = jax.ShapeDtypeStruct((), jnp.int32)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    program = devices.compile_ahead(
        jax.jit(function, donate_argnums=0),
        template,
        data,
        jax.eval_shape(draw_order, data, number),
        Pace(rate, rate, jax.ShapeDtypeStruct((), jnp.bool)),
        number,
    )
    return SearchProgram(program, draw_order, is_host_loop)
