"""What is searched: the parts of a method, made for the data; what its phases do."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from adarts_jax.bilevel import random_search, unrolled
from adarts_jax.bilevel.optimizers import Optimizers, make_optimizers
from adarts_jax.bilevel.steps import search_phase
from adarts_jax.config import SearchConfig
from adarts_jax.data import augment
from adarts_jax.engine import search_epoch
from adarts_jax.engine.epoch import Batching
from adarts_jax.engine.search_epoch import Phase
from adarts_jax.engine.search_setup import Start
from adarts_jax.methods import METHODS, Method
from adarts_jax.methods.method import Initialization
from adarts_jax.networks.stem import choose_stem


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
      copies_att_darts: see ``unrolled_phase`` and ``begin_joint_clipping``.
      one_pass: see ``search_epoch.draw_orders``.
      seed: of networks that draw; None for the others.
      repeat_every: see ``search_phase``.
      architecture_options: what else the first architecture depends on.
      num_searches: side by side.
      trains: whether there is anything to train; not for a mere random genotype.
      precision: of products, a name JAX knows.
    """

    method: Method
    network: nn.Module
    optimizers: Optimizers
    initialization: Initialization
    image_shape: tuple[int, int, int]
    batching: Batching
    hessian: unrolled.Hessian | None = None
    copies_att_darts: bool = False
    one_pass: bool = False
    seed: int | None = None
    repeat_every: int | None = None
    architecture_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_searches: int = 1
    trains: bool = True
    precision: str = "default"

    @property
    def phases(self) -> tuple[int, ...]:
        """Phases of a step, in order."""
        if self.hessian is None:
            return search_epoch.FIRST_ORDER
        return unrolled.PHASES[self.hessian]


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
        dtype=jnp.bfloat16 if config.network.precision == "bfloat16" else jnp.float32,
        options=options,
    )
    hessian: unrolled.Hessian | None = None
    if config.architecture.order == "second":
        hessian = config.architecture.hessian or "finite_difference"
    batching = make_batching(config, start)
    return Problem(
        method,
        network,
        choose_optimizers(config),
        config.architecture.initialization,
        image_shape,
        batching,
        hessian=hessian,
        copies_att_darts=config.compat.att_darts,
        one_pass=config.compat.architecture_batches == "one_pass",
        seed=config.seed if method.draws(options) else None,
        repeat_every=batching.steps_per_epoch if config.compat.stale_step else None,
        architecture_options=(
            {"options": options, "num_cells": config.network.num_cells}
            if options
            else {}
        ),
        num_searches=config.num_searches,
        trains=method.trains_architecture or bool(options.get("weight_sharing")),
        precision="highest" if config.network.precision == "float32" else "default",
    )


def choose_optimizers(config: SearchConfig) -> Optimizers:
    """Return the optimizers of both levels."""
    return make_optimizers(
        momentum=config.weights.momentum,
        weight_decay=config.weights.weight_decay,
        gradient_clip=config.weights.gradient_clip,
        architecture_betas=config.architecture.betas,
        architecture_weight_decay=config.architecture.weight_decay,
        architecture_gradient_clip=config.architecture.gradient_clip,
        virtual_momentum=not config.compat.att_darts,
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


def make_updates(problem: Problem) -> tuple[Phase, Phase | None]:
    """Return what the phases do, and what ``PRODUCT`` does if there is such a phase."""
    common: dict[str, Any] = {
        "network": problem.network,
        "optimizers": problem.optimizers,
    }
    if problem.seed is not None:
        common["seed"] = problem.seed
    if not problem.method.trains_architecture:
        return partial(random_search.random_phase, **common), None
    if problem.hessian is None:
        if problem.repeat_every is not None:
            common["repeat_every"] = problem.repeat_every
        return partial(search_phase, **common), None
    update = partial(
        unrolled.unrolled_phase,
        **common,
        moves_architecture=problem.copies_att_darts,
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
