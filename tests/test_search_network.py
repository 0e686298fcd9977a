"""What the search network means, shown by gradients; and its two steps."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import draw

import adarts_jax as aj
from adarts_jax.architecture import CellWeights
from adarts_jax.bilevel import steps
from adarts_jax.bilevel.optimizers import make_optimizers
from adarts_jax.bilevel.steps import SearchState
from adarts_jax.edges.attended import AttendedEdges
from adarts_jax.networks.search_network import SearchCell
from adarts_jax.nn.channel_attention import AlphaAttention, MlpAttention
from adarts_jax.space import topology

PRIMITIVES = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3")
CHANNELS, NUM_NODES = 8, 3
EDGES = topology.edge_sources(NUM_NODES)


def draw_variables(shapes: Any, seed: int = 0) -> Any:
    """Draw variables; compiling `init` would take as long as the tests."""
    leaves, structure = jax.tree.flatten(shapes)
    drawn = [0.5 + 0.3 * draw(seed + i, *leaf.shape) for i, leaf in enumerate(leaves)]
    return structure.unflatten([jnp.abs(leaf) for leaf in drawn])


def influence(attention: Any, *, reduction: bool) -> list[np.ndarray]:
    """Return the derivatives of every node by the op and edge weights of every edge.

    Both of shape (node, edge), the largest over operations; a cell's output holds its
    nodes side by side.
    """
    edges = functools.partial(
        AttendedEdges, primitives=PRIMITIVES, channel_divisor=4, attention=attention
    )
    cell: Any = SearchCell(CHANNELS, edges, reduction, num_nodes=NUM_NODES)
    states = draw(1, 2, 6, 6, 5), draw(2, 2, 6, 6, 7)
    weights = (
        jax.nn.softmax(draw(3, len(EDGES), len(PRIMITIVES)), -1),
        jax.nn.softmax(draw(4, len(EDGES))),
    )
    variables = draw_variables(
        jax.eval_shape(
            lambda key: cell.init(key, *states, CellWeights(*weights), train=False),
            jax.random.key(0),
        )
    )
    size = 3 if reduction else 6
    cotangent = draw(5, 2, size, size, NUM_NODES, CHANNELS)

    def node_sums(*weights: jax.Array) -> jax.Array:
        y, _ = cell.apply(
            variables,
            *states,
            CellWeights(*weights),
            train=True,
            mutable=["batch_stats"],
        )
        return (y.reshape(cotangent.shape) * cotangent).sum((0, 1, 2, 4))

    by_op, by_edge = jax.jit(jax.jacrev(node_sums, argnums=(0, 1)))(*weights)
    return [np.abs(by_op).max(-1), np.abs(by_edge)]


@pytest.mark.parametrize("reduction", [False, True])
def test_an_edge_influences_its_target_and_later_nodes_only(reduction):
    for derivatives in influence(MlpAttention, reduction=reduction):
        for (node, edge), derivative in np.ndenumerate(derivatives):
            if node + topology.NUM_INPUTS >= EDGES[edge][1]:
                assert derivative > 1e-4, (node, edge)
            else:
                assert derivative == 0, (node, edge)


def test_attention_on_the_architecture_carries_every_edge_everywhere():
    """In alpha-ADARTS every attention sees the op weights of all edges, by design."""
    by_op, by_edge = influence(AlphaAttention, reduction=False)
    assert (by_op > 0).all()
    assert (by_edge == 0).any()


RATES = {"weight_learning_rate": 0.1, "architecture_learning_rate": 0.01}
BATCH = 4


class Steps(NamedTuple):
    """A tiny search network, and what the steps make of its state."""

    network: Any
    start: SearchState
    architecture: SearchState
    weight: SearchState
    both: SearchState
    searched: SearchState
    metrics: dict[str, jax.Array]
    warm: SearchState
    warm_metrics: dict[str, jax.Array]


def draw_batch(seed: int) -> tuple[jax.Array, jax.Array]:
    return draw(seed, BATCH, 8, 8, 3), jnp.arange(BATCH) % 3


def tiny_state(network: Any, method: Any, optimizers: Any) -> SearchState:
    arch = method.init_architecture(jax.random.key(0), num_nodes=2)
    arch = jax.tree.map(lambda leaf: 500 * leaf, arch)
    shapes = jax.eval_shape(
        lambda key: steps.init_state(
            network, arch, optimizers, image_shape=(8, 8, 3), key=key
        ),
        jax.random.key(0),
    )
    params = draw_variables(shapes.params)
    return SearchState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=draw_variables(shapes.batch_stats, seed=100),
        weight_opt_state=optimizers.weight.init(params),
        arch=arch,
        arch_opt_state=optimizers.architecture.init(arch),
    )


@pytest.fixture(scope="module")
def stepped() -> Steps:
    """Take every kind of step once, from the same start."""
    method = dataclasses.replace(
        aj.METHODS["alpha_adarts"], primitives=PRIMITIVES, biased_primitive=None
    )
    network: Any = method.make_network(
        init_channels=8, num_cells=3, num_classes=3, num_nodes=2
    )
    parts: Any = {"network": network, "optimizers": make_optimizers()}
    start = tiny_state(network, method, parts["optimizers"])
    weight_batch, architecture_batch = draw_batch(0), draw_batch(1)

    def compiled(step: Any, rate: str) -> Any:
        return jax.jit(
            lambda *inputs: step(*inputs, learning_rate=RATES[rate], **parts)[0]
        )

    architecture_step = compiled(steps.architecture_step, "architecture_learning_rate")
    weight_step = compiled(steps.weight_step, "weight_learning_rate")
    search_step = jax.jit(functools.partial(steps.search_step, **parts, **RATES))
    batches = weight_batch, architecture_batch
    after_architecture = architecture_step(start, architecture_batch)
    searched = search_step(start, *batches, update_architecture=jnp.array(True))
    warm = search_step(start, *batches, update_architecture=jnp.array(False))
    assert search_step._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]
    return Steps(
        network,
        start,
        after_architecture,
        weight_step(start, weight_batch),
        weight_step(after_architecture, weight_batch),
        *searched,
        *warm,
    )


def same(first: Any, second: Any) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def all_moved(first: Any, second: Any) -> bool:
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return not any(np.array_equal(a, b) for a, b in pairs)


def assert_near(first: Any, second: Any) -> None:
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
        first,
        second,
    )


def test_architecture_step_leaves_the_weights_untouched(stepped):
    before, after = stepped.start, stepped.architecture
    assert same(before.params, after.params)
    assert same(before.weight_opt_state, after.weight_opt_state)
    assert after.step == before.step
    assert all_moved(before.arch, after.arch)
    assert all_moved(before.batch_stats, after.batch_stats)


def test_weight_step_leaves_the_architecture_untouched(stepped):
    before, after = stepped.start, stepped.weight
    assert same(before.arch, after.arch)
    assert same(before.arch_opt_state, after.arch_opt_state)
    assert after.step == before.step + 1
    assert all_moved(before.params, after.params)
    assert all_moved(before.batch_stats, after.batch_stats)


def test_warm_up_freezes_the_architecture(stepped):
    assert same(stepped.start.arch, stepped.warm.arch)
    assert same(stepped.start.arch_opt_state, stepped.warm.arch_opt_state)
    assert_near(stepped.warm, stepped.weight)
    for name, value in stepped.warm_metrics.items():
        assert jnp.isnan(value) == name.startswith("architecture/"), name


def test_search_step_is_architecture_step_then_weight_step(stepped):
    assert_near(stepped.searched, stepped.both)
    assert not same(stepped.searched.params, stepped.weight.params)
    for name, value in stepped.metrics.items():
        assert jnp.isfinite(value), name


def test_nothing_is_bound_to_the_ten_primitives(stepped):
    attention = stepped.start.params["cell_0"]["wave_0"]["attention"]
    assert attention["fc1"].shape[-1] == attention["fc2"].shape[-2] == len(PRIMITIVES)
    assert stepped.start.arch.alpha_normal.shape == (5, len(PRIMITIVES))


def test_reduction_cells_halve_and_double(stepped):
    images = jnp.zeros((2, 12, 8, 3))
    variables = {
        "params": stepped.start.params,
        "batch_stats": stepped.start.batch_stats,
    }
    shapes = jax.eval_shape(
        lambda images: stepped.network.apply(
            variables,
            stepped.start.arch,
            images,
            train=False,
            capture_intermediates=lambda module, _: isinstance(module, SearchCell),
            mutable=["intermediates"],
        )[1]["intermediates"],
        images,
    )
    found = [shapes[f"cell_{cell}"]["__call__"][0].shape for cell in range(3)]
    assert found == [(2, 12, 8, 16), (2, 6, 4, 32), (2, 3, 2, 64)]
