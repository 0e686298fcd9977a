"""From a config and images to the compiled functions of one search."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from adarts_jax.bilevel import random_search, unrolled
from adarts_jax.bilevel.search_state import begin_joint_clipping, init_state
from adarts_jax.bilevel.steps import QUANTITIES, WEIGHT
from adarts_jax.engine import compilation, devices, epoch, search_epoch
from adarts_jax.engine.epoch import Training
from adarts_jax.engine.pacing import Advance
from adarts_jax.engine.parallel_searches import OWN_DATA, stack, vectorize
from adarts_jax.engine.search_epoch import Pace, Phase, SearchData
from adarts_jax.engine.search_problem import Problem, join_updates, make_updates
from adarts_jax.engine.search_setup import Start

# Purposes of keys, next to those of `epoch`.
_WEIGHTS, _ARCHITECTURE = 2, 3


@dataclasses.dataclass(frozen=True)
class SearchProgram:
    """The compiled functions.

    Attributes:
      program: takes state (given away), data, orders, pace, and one number: that of the
        phase if the host loops, else how many steps to take.
      draw_orders: data and epoch -> batches of the epoch.
      is_host_loop: whether each call is a single phase.
      phases: of a step, in order.
      product: program of the phase ``PRODUCT`` where the host loops, if there is one.
    """

    program: compilation.Program
    draw_orders: Callable[..., Any]
    is_host_loop: bool
    phases: tuple[int, ...] = search_epoch.FIRST_ORDER
    product: compilation.Program | None = None

    def advance(self, data: SearchData, number: int, pace: Pace) -> Advance:
        """Return the function that advances within an epoch.

        Args:
          data: on the device.
          number: of the epoch.
          pace: of the epoch, on the host.
        """
        orders = self.draw_orders(data, jax.device_put(np.int32(number)))
        phases = self.phases if pace.update_architecture else (WEIGHT,)
        calls = [(self._program_of(n), jax.device_put(np.int32(n))) for n in phases]
        on_device = jax.device_put(pace)

        def advance(training: Training, steps: int) -> Training:
            todo = calls * steps
            if not self.is_host_loop:
                todo = [(self.program, jax.device_put(np.int32(steps)))]
            for program, number in todo:
                training = program.call(training, data, orders, on_device, number)
            return training

        return advance

    def _program_of(self, phase: int) -> compilation.Program:
        if phase == unrolled.PRODUCT and self.product is not None:
            return self.product
        return self.program


def put_data(
    start: Start, key: PRNGKeyArray, seed: np.ndarray | None = None
) -> SearchData:
    """Put the images of all splits on the device.

    Args:
      start: images and the splits of every search.
      key: root of the random numbers, (search,) where there are several.
      seed: see `SearchData`.
    """
    used = start.used

    def places(indices: list[np.ndarray]) -> Any:
        return stack([np.searchsorted(used, i).astype(np.int32) for i in indices])

    return jax.device_put(
        SearchData(
            images=start.data.images,
            labels=start.data.labels,
            weight_indices=places([s.weight_indices for s in start.splits]),
            architecture_indices=places([s.architecture_indices for s in start.splits]),
            key=key,
            seed=seed,
            statistics=start.own_statistics,
        )
    )


def make_init(problem: Problem) -> Callable[[PRNGKeyArray], Training]:
    """Return the function from the root key to the first state.

    Args:
      problem: what is searched. Of several searches, the key is (search,).
    """

    def init(key: PRNGKeyArray) -> Training:
        arch = problem.method.init_architecture(
            jax.random.fold_in(key, _ARCHITECTURE),
            initialization=problem.initialization,
            **problem.architecture_options,
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
        if problem.copies_att_darts:
            state = begin_joint_clipping(state)
        if not problem.method.trains_architecture:
            state = random_search.begin_random_search(state)
        return Training(
            state, epoch.zero_metrics(search_epoch.NUM_PHASES, len(QUANTITIES))
        )

    return vectorize(init, 0, problem.num_searches)


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
    draw_orders = partial(
        search_epoch.draw_orders, batching=problem.batching, one_pass=problem.one_pass
    )
    draw_orders = vectorize(draw_orders, (OWN_DATA, None), problem.num_searches)
    draw_orders = jax.jit(draw_orders)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    orders = jax.eval_shape(draw_orders, data, number)
    pace = Pace(rate, rate, jax.ShapeDtypeStruct((), jnp.bool))

    def compiled(update: Phase) -> compilation.Program:
        function = partial(
            search_epoch.train_phase if is_host_loop else search_epoch.train_steps,
            update=update,
            batching=problem.batching,
            phases=problem.phases,
        )
        axes = (0, OWN_DATA, 0, None, None)
        function = vectorize(function, axes, problem.num_searches)
        with jax.default_matmul_precision(problem.precision):
            return compilation.compile_ahead(
                function, template, data, orders, pace, number, donate_argnums=(0,)
            )

    if not is_host_loop and product is not None:
        update, product = join_updates(update, product), None
    return SearchProgram(
        compiled(update),
        draw_orders,
        is_host_loop,
        problem.phases,
        None if product is None else compiled(product),
    )
