"""Choosing a part of the channels, and putting the result back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import draw
from hypothesis import given, settings
from hypothesis import strategies as st

from adarts_jax.architecture import CellWeights
from adarts_jax.edges.attended import AttendedEdges
from adarts_jax.edges.wave import Wave, cell_waves
from adarts_jax.nn import partial_channels, pooling
from adarts_jax.nn.channel_attention import AlphaAttention, MlpAttention, pool_state

CHANNELS, DIVISOR, SELECTED = 8, 4, 2
PRIMITIVES = ("none", "skip_connect", "sep_conv_3x3")
WAVE = cell_waves(2)[0]  # two sources, two targets


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.integers(1, 6))
def test_ties_keep_the_lowest_index_first(scores, count):
    ours = partial_channels.top_channels(jnp.array([scores], jnp.float32), count)
    want = sorted(range(6), key=lambda channel: (-scores[channel], channel))[:count]
    assert ours[0].tolist() == want


def test_choice_carries_no_gradient():
    def chosen_sum(scores):
        best = partial_channels.top_channels(scores, 2)
        return partial_channels.selection_matrix(best, 4).sum()

    gradient = jax.grad(chosen_sum)(jnp.arange(8.0).reshape(2, 4))
    assert not gradient.any()


def test_an_edge_is_tied_where_all_scores_are_equal():
    scores = jnp.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0 + 1e-6]])
    assert partial_channels.all_tied(scores).tolist() == [True, False]


def test_selection_matrix_picks_in_order():
    matrix = partial_channels.selection_matrix(jnp.array([[2, 0]]), 4)
    assert (matrix[0] @ jnp.array([10.0, 11.0, 12.0, 13.0])).tolist() == [12.0, 10.0]


def test_first_channels_and_shuffle():
    x = jnp.arange(16.0).reshape(1, 1, 1, 16)
    first, rest = partial_channels.first_channels(x, 4)
    assert first.ravel().tolist() == [0, 1, 2, 3]
    assert rest.shape[-1] == 12
    shuffled = partial_channels.channel_shuffle(x, 4)
    assert not jnp.array_equal(shuffled, x)
    np.testing.assert_array_equal(partial_channels.channel_shuffle(shuffled, 4), x)


def build(attention, stride, wave: Wave = WAVE):
    module = AttendedEdges(wave, PRIMITIVES, stride, DIVISOR, attention)
    states = tuple(draw(seed, 3, 6, 6, CHANNELS) for seed in wave.sources)
    edges = max(wave.edges) + 1
    inputs = jax.nn.softmax(draw(7, edges, len(PRIMITIVES)), -1), jnp.ones(edges)
    weights = CellWeights(*inputs)
    variables = module.init(jax.random.key(0), states, weights, train=True)
    return module, variables, states, inputs


def run(module, variables, states, op_weights, edge_weights):
    """Apply the wave; return outputs and selected channels."""

    @jax.jit
    def apply(variables, states, op_weights, edge_weights):
        return module.apply(
            variables,
            states,
            CellWeights(op_weights, edge_weights),
            train=True,
            mutable=["batch_stats", "intermediates"],
        )

    weights = {k: variables[k] for k in ("params", "batch_stats")}
    outputs, updates = apply(weights, states, op_weights, edge_weights)
    return outputs, updates["intermediates"]["selected_channels"][0]


def attended(variables, attention, state, op_weights, row):
    """Attention times state of one edge, by the attention module alone."""
    params = variables["params"]["attention"]
    mine = jax.tree.map(lambda leaf: leaf[row : row + 1], params)
    mean, maximum = (pooled[None] for pooled in pool_state(state))
    factor = attention().apply({"params": mine}, mean, maximum, op_weights)
    return state * factor[0, :, None, None]


@pytest.mark.parametrize("attention", [AlphaAttention, MlpAttention])
@pytest.mark.parametrize("stride", [1, 2])
def test_unselected_channels_are_attended_states(attention, stride):
    module, variables, states, (op_weights, edge_weights) = build(attention, stride)
    for row, edge in enumerate(WAVE.edges):
        alone = jnp.zeros_like(edge_weights).at[edge].set(1.0)
        outputs, selected = run(module, variables, states, op_weights, alone)
        state = states[WAVE.edge_sources[row]]
        want = attended(variables, attention, state, op_weights, row)
        want = pooling.max_pool_2x2(want) if stride == 2 else want
        got = outputs[WAVE.edge_targets[row]]
        untouched = np.setdiff1d(np.arange(CHANNELS), selected[row])
        assert len(untouched) == CHANNELS - SELECTED
        np.testing.assert_allclose(
            got[..., untouched], want[..., untouched], rtol=1e-5, atol=1e-6
        )
        changed = np.asarray(got - want)[..., np.asarray(selected[row])]
        assert (np.abs(changed).max((0, 1, 2)) > 1e-2).all()


def test_edge_weights_scale_an_edge_and_nothing_else():
    module, variables, states, (op_weights, edge_weights) = build(MlpAttention, 1)
    outputs = [
        run(module, variables, states, op_weights, weights)[0]
        for weights in (
            edge_weights.at[WAVE.edges[0]].set(0.0),
            edge_weights,
            edge_weights.at[WAVE.edges[0]].set(2.0),
        )
    ]
    target = WAVE.edge_targets[0]
    once, twice = (
        outputs[1][target] - outputs[0][target],
        (outputs[2][target] - outputs[0][target]),
    )
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-4, atol=1e-5)
    assert np.abs(once).max() > 0.1
    np.testing.assert_array_equal(outputs[0][1 - target], outputs[2][1 - target])


def test_selection_changes_the_result(monkeypatch):
    module, variables, states, inputs = build(MlpAttention, 1)
    outputs, selected = run(module, variables, states, *inputs)
    worst = partial_channels.top_channels
    monkeypatch.setattr(
        partial_channels, "top_channels", lambda scores, count: worst(-scores, count)
    )
    others, reversed_selection = run(module, variables, states, *inputs)
    assert not set(np.ravel(selected[0])) & set(np.ravel(reversed_selection[0]))
    assert all(np.abs(a - b).max() > 0.1 for a, b in zip(outputs, others, strict=True))


def test_selected_are_the_most_attended_of_the_whole_batch():
    module, variables, states, inputs = build(MlpAttention, 1)
    _, selected = run(module, variables, states, *inputs)
    for row in range(WAVE.size):
        state = jnp.ones_like(states[0])
        pooled = states[WAVE.edge_sources[row]]
        factor = attended(variables, MlpAttention, pooled, inputs[0], row) / pooled
        scores = (factor * state)[:, 0, 0].sum(0)
        want = np.argsort(-np.asarray(scores), kind="stable")[:SELECTED]
        assert selected[row].tolist() == want.tolist()
