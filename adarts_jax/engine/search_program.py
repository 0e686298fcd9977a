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
from adarts_jax.bilevel.steps import init_state, search_step
from adarts_jax.config import SearchConfig
from adarts_jax.engine import devices, epoch
from adarts_jax.engine.epoch import Batching, Pace, SearchData, Training
from adarts_jax.engine.pacing import Advance
from adarts_jax.engine.search_setup import Start
from adarts_jax.methods import METHODS, Method

# What `search_step` reports.
METRICS = (
    *("weight/loss", "weight/accuracy", "weight/gradient_norm"),
    *("architecture/loss", "architecture/accuracy", "architecture/gradient_norm"),
    "attention/tied_edges",
)

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
    initialization: str
    image_shape: tuple[int, int, int]
    batching: Batching


@dataclasses.dataclass(frozen=True)
class SearchProgram:
    """The compiled functions.

    Attributes:
      step: takes state (given away), data, order and pace; and a number of steps,
        unless each call is a single one.
      draw_order: data and epoch -> batches of the epoch.
      is_host_loop: whether each call is a single step.
    """

    step: devices.Program
    draw_order: Callable[..., Any]
    is_host_loop: bool

    def advance(self, data: SearchData, number: int, pace: Pace) -> Advance:
        """Return the function that advances within epoch ``number``."""
        order = self.draw_order(data, jax.device_put(np.int32(number)))

        def advance(training: Training, steps: int) -> Training:
            if not self.is_host_loop:
                times = jax.device_put(np.int32(steps))
                return self.step.call(training, data, order, pace, times)
            for _ in range(steps):
                training = self.step.call(training, data, order, pace)
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
        pad=config.data.pad,
        flip=config.data.flip,
        cutout_size=config.data.cutout_size,
        mean=mean,
        std=std,
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
        return Training(state, epoch.zero_metrics(METRICS))

    return jax.jit(init).trace(key)


def compile_search(
    problem: Problem, template: Training, data: SearchData
) -> SearchProgram:
    """Compile the step, or a loop of any number of them.

    Args:
      problem: what is searched.
      template: shapes and types of the state.
      data: on the device.
    """
    step = partial(search_step, network=problem.network, optimizers=problem.optimizers)
    one_step = partial(epoch.train_step, step=step, batching=problem.batching)

    def many_steps(
        training: Training, data: SearchData, order: Any, pace: Pace, times: Any
    ) -> Training:
        return epoch.repeat(
            lambda carry: one_step(carry, data, order, pace), training, times
        )

    draw_order = jax.jit(partial(epoch.draw_order, batching=problem.batching))
    number = jax.ShapeDtypeStruct((), jnp.int32)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    shapes = [
        template,
        data,
        jax.eval_shape(draw_order, data, number),
        Pace(rate, rate, jax.ShapeDtypeStruct((), jnp.bool)),
    ]
    is_host_loop = loops_on_the_host()
    function = one_step if is_host_loop else many_steps
    shapes += [] if is_host_loop else [number]
    program = devices.compile_ahead(jax.jit(function, donate_argnums=0), *shapes)
    return SearchProgram(program, draw_order, is_host_loop)


def loops_on_the_host() -> bool:
    """Return whether steps are single calls instead of a loop inside one program.

    So on a CPU: inside a loop XLA's CPU compiler replaces its fast convolutions by a
    slow one (measured: gradients of 5x5 convolutions 8 times slower), and a call costs
    next to nothing there.
    """
    return jax.default_backend() == "cpu"
