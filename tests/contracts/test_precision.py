"""bfloat16 reaches the products of every search method, and harms none."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from jax.flatten_util import ravel_pytree

import adarts_jax as aj
from adarts_jax.bilevel.gradients import Gradients, first_order
from adarts_jax.methods import METHODS

QUICK = ("alpha_adarts", "pc_darts")
CASES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK))
    for name in METHODS
]
PIXELS = 10_000  # numbers of an operand; without pixels it has fewer


def gradients_of(name, dtype, *, side) -> tuple[Gradients, core.ClosedJaxpr]:
    """Shapes of all gradients of a batch, and the program that computes them."""
    network = aj.search_network(name, init_channels=8, num_cells=3, dtype=dtype)
    arch = aj.init_architecture(name, jax.random.key(0))
    batch = (jnp.ones((4, side, side, 3)), jnp.zeros(4, jnp.int32))
    initialize = lambda key: network.init(key, arch, batch[0], train=False)  # noqa: E731
    variables = jax.eval_shape(initialize, jax.random.key(0))
    program, shapes = jax.make_jaxpr(
        lambda params, stats: first_order(
            network, params, arch, stats, batch, key=jax.random.key(1)
        ),
        return_shape=True,
    )(variables["params"], variables["batch_stats"])
    return shapes, program


def products(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Yield every matrix product and convolution, inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            if isinstance(value, core.ClosedJaxpr):
                yield from products(value.jaxpr)
            elif isinstance(value, core.Jaxpr):
                yield from products(value)


@pytest.mark.parametrize("name", CASES)
def test_products_of_pixels_are_half_precision(name):
    shapes, program = gradients_of(name, jnp.bfloat16, side=32)
    operands: list[Any] = [
        x.aval for equation in products(program.jaxpr) for x in equation.invars
    ]
    with_pixels = [x for x in operands if x.size >= PIXELS]
    assert len(with_pixels) > 10
    assert {str(x.dtype) for x in with_pixels} == {"bfloat16"}
    for kept in (shapes.params, shapes.arch, shapes.batch_stats, shapes.logits):
        assert {str(x.dtype) for x in jax.tree.leaves(kept)} == {"float32"}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(METHODS))
def test_gradients_point_the_same_way(name):
    random = np.random.RandomState(0)
    images = jnp.asarray(random.standard_normal((16, 8, 8, 3)), jnp.float32)
    batch = (images, jnp.asarray(random.randint(0, 10, 16)))
    arch = aj.init_architecture(name, jax.random.key(0))
    found = []
    for dtype in (jnp.float32, jnp.bfloat16):
        network = aj.search_network(name, init_channels=8, num_cells=3, dtype=dtype)
        variables = network.init(jax.random.key(0), arch, images, train=False)
        run = partial(first_order, network, variables["params"], arch)
        run = partial(run, variables["batch_stats"], batch, key=jax.random.key(1))
        found.append(jax.jit(run)())
    assert abs(found[0].loss - found[1].loss) < 0.05
    flat = [ravel_pytree(f.params)[0] for f in found]
    cosine = jnp.vdot(*flat) / jnp.linalg.norm(flat[0]) / jnp.linalg.norm(flat[1])
    assert cosine > 0.9
