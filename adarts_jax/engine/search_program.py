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

from adarts_jax.bilevel import unrolled
from adarts_jax.bilevel.optimizers import Optimizers, make_optimizers
from adarts_jax.bilevel.steps import (
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
from adarts_jax.engine.search_epoch import Pace, Phase, SearchData
from adarts_jax.engine.search_setup import Start
from adarts_jax.methods import METHODS, Method
from adarts_jax.methods.method import Initialization
from adarts_jax.networks.stem import choose_stem

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
      hessian: how the second order multiplies; None for the first order.
      moves_architecture: see ``unrolled_phase``.
      seed: of networks that draw; None for the others.
      repeat_every: see ``search_phase``.
    """

    method: Method
    network: nn.Module
    optimizers: Optimizers
    initialization: Initialization
    image_shape: tuple[int, int, int]
    batching: Batching
    hessian: unrolled.Hessian | None = None
    moves_architecture: bool = False
    seed: int | None = None
    repeat_every: int | None = None

    @property
    def phases(self) -> tuple[int, ...]:
        """Phases of a step, in order."""
        if self.hessian is None:
            return search_epoch.FIRST_ORDER
        return unrolled.PHASES[self.hessian]


@dataclasses.dataclass(frozen=True)
class SearchProgram:
    """The compiled functions.

    Attributes:
      program: takes state (given away), data, order, pace, and one number: that of the
        phase if the host loops, else how many steps to take.
      draw_order: data and epoch -> batches of the epoch.
      is_host_loop: whether each call is a single phase.
      phases: of a step, in order.
      product: program of the phase ``PRODUCT`` where the host loops, if there is one.
    """

    program: devices.Program
    draw_order: Callable[..., Any]
    is_host_loop: bool
    phases: tuple[int, ...] = search_epoch.FIRST_ORDER
    product: devices.Program | None = None

    def advance(self, data: SearchData, number: int, pace: Pace) -> Advance:
        """Return the function that advances within an epoch.

        Args:
          data: on the device.
          number: of the epoch.
          pace: of the epoch, on the host.
        """
        order = self.draw_order(data, jax.device_put(np.int32(number)))
        phases = self.phases if pace.update_architecture else (WEIGHT,)
        calls = [(self._program_of(n), jax.device_put(np.int32(n))) for n in phases]
        on_device = jax.device_put(pace)

        def advance(training: Training, steps: int) -> Training:
            todo = calls * steps
            if not self.is_host_loop:
                todo = [(self.program, jax.device_put(np.int32(steps)))]
            for program, number in todo:
                training = program.call(training, data, order, on_device, number)
            return training

        return advance

    def _program_of(self, phase: int) -> devices.Program:
        if phase == unrolled.PRODUCT and self.product is not None:
            return self.product
        return self.program


def make_problem(config: SearchConfig, start: Start) -> Problem:
    """Build network, optimizers and batching for the data of a search.

    Raises:
      UserError: the method does not have an option that was chosen.
    """
    method, image_shape = METHODS[config.method], start.data.image_shape
    options = config.options.model_dump(exclude_none=True)
    network = method.make_network(
        init_channels=config.network.init_channels,
        num_cells=config.network.num_cells,
        num_classes=start.data.num_classes,
        channel_divisor=config.network.channel_divisor,
        stem=choose_stem(config.network.stem, image_shape[:2]),
        options=options,
    )
    hessian = None
    if config.architecture.order == "second":
        hessian = config.architecture.hessian or "finite_difference"
    copies_att_darts = config.compat.second_order == "att_darts"
    optimizers = make_optimizers(
        momentum=config.weights.momentum,
        weight_decay=config.weights.weight_decay,
        gradient_clip=config.weights.gradient_clip,
        architecture_betas=config.architecture.betas,
        architecture_weight_decay=config.architecture.weight_decay,
        architecture_gradient_clip=config.architecture.gradient_clip,
        virtual_momentum=not copies_att_darts,
    )
    batching = make_batching(config, start)
    return Problem(
        method,
        network,
        optimizers,
        config.architecture.initialization,
        image_shape,
        batching,
        hessian=hessian,
        moves_architecture=copies_att_darts,
        seed=config.seed if method.draws(options) else None,
        repeat_every=batching.steps_per_epoch if config.compat.stale_step else None,
    )


def make_batching(config: SearchConfig, start: Start) -> Batching:
    """Return how batches are made of the data of a search."""
    mean, std = start.statistics
    return Batching(
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
        if problem.hessian is not None:
            state = unrolled.begin_unrolling(state)
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
    is_host_loop = devices.loops_on_the_host()
    update, product = make_updates(problem)
    draw_order = jax.jit(partial(epoch.draw_order, batching=problem.batching))
    number = jax.ShapeDtypeStruct((), jnp.int32)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    order = jax.eval_shape(draw_order, data, number)
    pace = Pace(rate, rate, jax.ShapeDtypeStruct((), jnp.bool))

    def compiled(update: Phase) -> devices.Program:
        function = partial(
            search_epoch.train_phase if is_host_loop else search_epoch.train_steps,
            update=update,
            batching=problem.batching,
            phases=problem.phases,
        )
        function = jax.jit(function, donate_argnums=0)
        return devices.compile_ahead(function, template, data, order, pace, number)

    if not is_host_loop and product is not None:
        update, product = join_updates(update, product), None
    return SearchProgram(
        compiled(update),
        draw_order,
        is_host_loop,
        problem.phases,
        None if product is None else compiled(product),
    )


def make_updates(problem: Problem) -> tuple[Phase, Phase | None]:
    """Return what the phases do, and what ``PRODUCT`` does if there is such a phase."""
    common: dict[str, Any] = {
        "network": problem.network,
        "optimizers": problem.optimizers,
    }
    if problem.seed is not None:
        common["seed"] = problem.seed
    if problem.hessian is None:
        if problem.repeat_every is not None:
            common["repeat_every"] = problem.repeat_every
        return partial(search_phase, **common), None
    update = partial(
        unrolled.unrolled_phase,
        **common,
        moves_architecture=problem.moves_architecture,
    )
    if problem.hessian == "finite_difference":
        return update, None
    return update, partial(unrolled.product_phase, **common)


def join_updates(update: Phase, product: Phase) -> Phase:
    """Return one function of both, for a loop on the device."""

    def either(state: Any, batch: Any, phase: Any, **rates: Any) -> tuple[Any, Any]:
        return jax.lax.cond(
            phase == unrolled.PRODUCT,
            lambda s: product(s, batch, phase, **rates),
            lambda s: update(s, batch, phase, **rates),
            state,
        )

    return either
