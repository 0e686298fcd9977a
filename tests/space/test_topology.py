"""The edge order is the contract that alpha, beta, weights and pictures share."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adarts_jax.space import topology

NODES = st.integers(0, 12)


def test_examples_in_the_documentation():
    result = doctest.testmod(topology)
    assert result.attempted >= 6
    assert result.failed == 0


def test_published_cell():
    assert topology.num_edges() == 14
    slices = [topology.incoming_edges(node) for node in range(4)]
    assert [(s.start, s.stop) for s in slices] == [(0, 2), (2, 5), (5, 9), (9, 14)]


@given(NODES)
def test_node_count_is_the_inverse_of_edge_count(nodes):
    assert topology.num_nodes(topology.num_edges(nodes)) == nodes


@pytest.mark.parametrize("edges", [-1, 1, 3, 4, 13, 15])
def test_edge_counts_of_no_cell_are_refused(edges):
    with pytest.raises(ValueError, match=str(edges)):
        topology.num_nodes(edges)


@given(NODES)
def test_edges_are_numbered_without_gaps(nodes):
    edges = topology.edge_sources(nodes)
    assert len(edges) == topology.num_edges(nodes)
    assert [topology.edge_index(*edge) for edge in edges] == list(range(len(edges)))
    for node in range(nodes):
        incoming = edges[topology.incoming_edges(node)]
        assert [target for _, target in incoming] == [node + 2] * (node + 2)
        assert [source for source, _ in incoming] == list(range(node + 2))


@pytest.mark.parametrize(("source", "target"), [(0, 1), (2, 2), (-1, 2), (3, 2)])
def test_backward_edges_are_refused(source, target):
    with pytest.raises(ValueError, match="no edge"):
        topology.edge_index(source, target)


@pytest.mark.parametrize(
    ("cells", "positions"),
    [(8, (2, 5)), (20, (6, 13)), (14, (4, 9)), (3, (1, 2)), (2, (0, 1)), (1, (0,))],
)
def test_reduction_cells(cells, positions):
    assert topology.reduction_cells(cells) == positions
