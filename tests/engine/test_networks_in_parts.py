"""Both networks are cut at their cells, and learn in parts as they do as a whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarts_jax import architecture
from adarts_jax.bilevel import steps
from adarts_jax.bilevel.optimizers import make_optimizers
from adarts_jax.bilevel.search_state import init_state
from adarts_jax.edges.attended import AttendedEdges
from adarts_jax.engine import compilation
from adarts_jax.engine.chain import Chain
from adarts_jax.networks.derived_network import DerivedNetwork, init_variables
from adarts_jax.networks.search_network import SearchNetwork
from adarts_jax.nn.channel_attention import AlphaAttention
from adarts_jax.space.genotype import Genotype
from adarts_jax.training import retrain_step

PRIMITIVES = ("none", "skip_connect", "dil_conv_3x3")
CELLS, CLASSES, SIDE, BATCH, STEPS = 9, 3, 8, 4, 3
OPTIMIZERS = make_optimizers()
ENTRIES = [("sep_conv_3x3", 0), ("max_pool_3x3", 1)]


@pytest.fixture
def batch():
    images = jax.random.normal(jax.random.key(1), (BATCH, SIDE, SIDE, 1))
    return images, jnp.arange(BATCH) % CLASSES


def begin_search():
    edges = functools.partial(AttendedEdges, attention=AlphaAttention)
    network = SearchNetwork(
        4, CELLS, CLASSES, edges, PRIMITIVES, (2,) * CELLS, num_nodes=1
    )
    arch = architecture.init_architecture(
        jax.random.key(0), num_primitives=len(PRIMITIVES), num_nodes=1
    )
    rates = {"weight_learning_rate": 0.1, "architecture_learning_rate": 0.01}
    phase = functools.partial(
        steps.search_phase, network=network, optimizers=OPTIMIZERS, **rates
    )
    state = jax.jit(
        lambda key: init_state(
            network, arch, OPTIMIZERS, image_shape=(SIDE, SIDE, 1), key=key
        )
    )(jax.random.key(2))
    return phase, state


def begin_training():
    genotype = Genotype(ENTRIES, [2], ENTRIES, [2])
    network = DerivedNetwork(genotype, 4, CELLS, CLASSES)
    variables = init_variables(network, jax.random.key(0), (SIDE, SIDE, 1))
    state = retrain_step.init_state(variables, OPTIMIZERS.weight, keep_mean=False)

    def step(state, batch, number):
        images, labels = batch
        return retrain_step.retrain_step(
            state,
            (images, labels, jax.nn.one_hot(labels, CLASSES)),
            jax.random.fold_in(jax.random.key(3), number),
            network=network,
            optimizer=OPTIMIZERS.weight,
            auxiliary_weight=0.0,
            learning_rate=0.1,
            drop_path_rate=0.3,
            mean_decay=None,
        )

    return step, jax.tree.map(jnp.array, state)


@pytest.mark.parametrize("begin", [begin_search, begin_training])
def test_a_network_learns_in_parts_as_it_does_as_a_whole(begin, batch, monkeypatch):
    step, state = begin()
    numbers = [jnp.int32(number % 2) for number in range(STEPS)]
    given = state, batch, numbers[0]
    parts = compilation.compile_ahead(step, *given, donate_argnums=(0,)).call
    monkeypatch.setattr(compilation, "has_repeats", lambda _: False)
    whole = compilation.compile_ahead(step, *given).call
    assert isinstance(parts, Chain)
    assert not isinstance(whole, Chain)
    assert len(parts.programs) < len(parts.links)
    expected = found = state
    found = jax.tree.map(jnp.array, state)
    for number in numbers:
        expected, values = whole(expected, batch, number)
        with jax.transfer_guard("disallow"):
            found, measured = parts(found, batch, number)
        np.testing.assert_allclose(measured, values, rtol=1e-4, atol=1e-5)
    for one, other in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-4)
