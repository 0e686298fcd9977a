"""Discretization: the originals' genotypes for given draws, and what must hold."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adarts_jax.discretize import discretize, none_edge_share
from adarts_jax.space import topology
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.operations import (
    ALPHA_ADARTS_PRIMITIVES,
    ATTENTIONS,
    DARTS_PRIMITIVES,
)

RULES = st.sampled_from(["darts", "edge_weighted"])


@dataclass
class Arch:
    """NumPy architecture parameters, the least that discretize accepts."""

    alphas: dict
    betas: dict

    def alpha(self, cell_type):
        return self.alphas[cell_type]

    def beta(self, cell_type):
        return self.betas[cell_type]

    def attention(self, cell_type):
        return self.betas[cell_type]  # Att-DARTS calls its attention logits so


def arch(alpha, beta=None):
    return Arch(
        dict.fromkeys(topology.CELL_TYPES, alpha), {"normal": beta} | {"reduce": beta}
    )


def one_node(rows, beta=None):
    """Alpha of a cell with one node; the columns are none, max_pool, skip."""
    return arch(np.array(rows), None if beta is None else np.array(beta))


THREE = ("none", "max_pool_3x3", "skip_connect")

GOLDENS = {
    "B1_alpha_genotypes": (ALPHA_ADARTS_PRIMITIVES, "edge_weighted", ()),
    "B3_pc_genotypes": (DARTS_PRIMITIVES, "edge_weighted", ()),
    "B4_darts_genotypes": (DARTS_PRIMITIVES, "darts", ()),
    "B5_att_after_every_genotypes": (DARTS_PRIMITIVES, "darts", ATTENTIONS),
    "B5_att_no_attention_genotypes": (DARTS_PRIMITIVES, "darts", ()),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_draws_of_the_originals(shared, name):
    primitives, rule, attentions = GOLDENS[name]
    arrays = np.load(shared / "golden" / f"{name}.npz")
    draws = json.loads((shared / "golden" / f"{name}.json").read_text("utf-8"))["draws"]
    assert len(draws) == 38
    assert sum(draw["tied"] for draw in draws) >= 6
    for number, draw in enumerate(draws):
        values = {k.removeprefix("draw/"): arrays[k][number] for k in arrays.files}
        drawn = Arch(
            {c: values[f"alphas_{c}"] for c in topology.CELL_TYPES},
            {c: values.get(f"betas_{c}") for c in topology.CELL_TYPES},
        )
        original = draw["genotype"]
        length = 3 if attentions else 2  # an empty attention is none
        expected = Genotype(
            [entry[:length] for entry in original["normal"]],
            original["normal_concat"],
            [entry[:length] for entry in original["reduce"]],
            original["reduce_concat"],
        )
        found = discretize(drawn, primitives, rule=rule, attentions=attentions)
        assert found == expected, number


# Logits on a grid, so that adding an integer is exact and ties happen.
GRID = st.integers(-2048, 2048)


@st.composite
def architectures(draw):
    nodes = draw(st.integers(1, 4))
    edges = topology.num_edges(nodes)
    # One draw for everything: hypothesis is slow at drawing many small arrays.
    shape = (2, edges, len(DARTS_PRIMITIVES) + 1)
    normal, reduce = draw(hnp.arrays(np.int64, shape, elements=GRID)) / 512
    return Arch(
        {"normal": normal[:, 1:], "reduce": reduce[:, 1:]},
        {"normal": normal[:, 0], "reduce": reduce[:, 0]},
    )


@settings(max_examples=40)
@given(architectures(), RULES)
def test_two_distinct_inputs_per_node_and_never_none(drawn, rule):
    genotype = discretize(drawn, DARTS_PRIMITIVES, rule=rule)
    for cell_type in topology.CELL_TYPES:
        entries = genotype.entries(cell_type)
        nodes = topology.num_nodes(len(drawn.alpha(cell_type)))
        assert len(entries) == 2 * nodes
        assert genotype.concat(cell_type) == topology.concat_nodes(nodes)
        assert all(entry.op != "none" for entry in entries)
        for node in range(nodes):
            first, second = entries[2 * node : 2 * node + 2]
            assert first.source != second.source


@settings(max_examples=40)
@given(architectures(), RULES, st.integers(-4, 4), st.data())
def test_a_constant_added_to_a_row_changes_nothing(drawn, rule, constant, data):
    before = discretize(drawn, DARTS_PRIMITIVES, rule=rule)
    alpha = drawn.alphas["normal"]
    alpha[data.draw(st.integers(0, len(alpha) - 1))] += constant
    drawn.betas["reduce"][topology.incoming_edges(0)] += constant
    assert discretize(drawn, DARTS_PRIMITIVES, rule=rule) == before


@settings(max_examples=40)
@given(architectures())
def test_uniform_betas_are_the_rule_of_darts(drawn):
    for beta in drawn.betas.values():
        beta[:] = 0
    assert discretize(drawn, DARTS_PRIMITIVES, rule="edge_weighted") == discretize(
        drawn, DARTS_PRIMITIVES, rule="darts"
    )


@settings(max_examples=40)
@given(architectures(), st.permutations(range(1, 8)))
def test_order_of_the_other_candidates_does_not_matter(drawn, order):
    """Edge strengths see the softmax, not the order in which it is summed."""
    permuted = [0, *order]
    again = Arch({c: a[:, permuted] for c, a in drawn.alphas.items()}, drawn.betas)
    before = discretize(drawn, DARTS_PRIMITIVES, rule="darts")
    after = discretize(again, [DARTS_PRIMITIVES[i] for i in permuted], rule="darts")
    for cell_type in topology.CELL_TYPES:
        assert [e.source for e in before.entries(cell_type)] == [
            e.source for e in after.entries(cell_type)
        ]


def ops_and_sources(drawn, rule="darts", primitives=THREE):
    return [tuple(e[:2]) for e in discretize(drawn, primitives, rule=rule).normal]


def test_strongest_edge_first():
    drawn = one_node([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    assert ops_and_sources(drawn) == [("skip_connect", 1), ("max_pool_3x3", 0)]


def test_none_takes_part_in_the_softmax():
    """Edge 1 has the larger logit but loses strength to none."""
    drawn = one_node([[0.0, 1.0, 0.0], [5.0, 2.0, 0.0]])
    assert ops_and_sources(drawn) == [("max_pool_3x3", 0), ("max_pool_3x3", 1)]


def test_betas_weigh_edges_but_not_operations():
    rows = [[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]
    drawn = one_node(rows, beta=[3.0, 0.0])
    expected = [("max_pool_3x3", 0), ("skip_connect", 1)]
    assert ops_and_sources(drawn, "edge_weighted") == expected
    assert ops_and_sources(drawn, "darts") == expected[::-1]


def test_huge_logits_neither_overflow_nor_drown_other_nodes():
    """A softmax over all edges would round the betas of the second node to zero."""
    alpha = np.zeros((5, 3))
    alpha[:, 1] = [0.5, 0.5, 0.1, 0.5, 0.2]
    drawn = arch(alpha, np.array([2000.0, 2000.0, 0.0, 0.0, 0.0]))
    sources = [source for _, source in ops_and_sources(drawn, "edge_weighted")]
    assert sources == [0, 1, 1, 2]
    huge = one_node([[0.0, 5000.0, 4999.0], [0.0, 3000.0, 3003.0]])
    assert ops_and_sources(huge) == [("skip_connect", 1), ("max_pool_3x3", 0)]


def test_ties_go_to_the_lower_source_and_the_earlier_primitive():
    alpha = np.zeros((5, 3))
    pool = "max_pool_3x3"
    expected = [(pool, 0), (pool, 1)] * 2
    assert ops_and_sources(arch(alpha, np.zeros(5)), "edge_weighted") == expected
    assert ops_and_sources(arch(alpha)) == expected


def test_rows_that_are_permutations_tie():
    """0.1, 0.2, 0.3 sum to another float in another order; the edges still tie."""
    rows = [[0.3, 0.2, 0.1], [0.1, 0.3, 0.2], [0.2, 0.1, 0.3]]
    alpha = np.array([rows[0], rows[0], *rows]) * 7
    sources = [source for _, source in ops_and_sources(arch(alpha))]
    assert sources[2:] == [1, 2]


def test_single_precision_from_jax_is_accepted():
    import jax.numpy as jnp

    from adarts_jax.architecture import ArchitectureParams

    alpha = np.random.default_rng(0).normal(size=(14, 8)).astype(np.float32)
    beta = np.zeros(14, np.float32)
    ours = ArchitectureParams(*map(jnp.asarray, (alpha, alpha, beta, beta)))
    for rule in ("darts", "edge_weighted"):
        assert discretize(ours, DARTS_PRIMITIVES, rule=rule) == discretize(
            arch(alpha, beta), DARTS_PRIMITIVES, rule=rule
        )


@pytest.mark.parametrize(
    ("drawn", "rule", "primitives", "complaint"),
    [
        (arch(np.zeros((4, 3))), "darts", THREE, "num_edges=4"),
        (arch(np.zeros((5, 2))), "darts", THREE, "2 operations per edge, expected 3"),
        (arch(np.zeros(5)), "darts", THREE, "expected 2 dimensions"),
        (arch(np.full((5, 3), np.nan)), "darts", THREE, "not finite"),
        (arch(np.zeros((5, 3))), "edge_weighted", THREE, "needs beta_normal"),
        (arch(np.zeros((5, 3)), np.zeros(2)), "edge_weighted", THREE, "2 edges"),
        (arch(np.zeros((5, 3))), "pc", THREE, "rule='pc'"),
        (arch(np.zeros((2, 1))), "darts", ("none",), "nothing but none"),
    ],
)
def test_misuse_is_named(drawn, rule, primitives, complaint):
    with pytest.raises(ValueError, match=complaint):
        discretize(drawn, primitives, rule=rule)


def test_none_edge_share():
    alpha = np.zeros((5, 8))
    alpha[:2, 0] = 1.0
    alpha[2:, 4] = 1.0
    drawn = Arch({"normal": alpha, "reduce": -alpha}, {})
    assert none_edge_share(drawn) == {
        "normal/none_edges": 0.4,
        "reduce/none_edges": 0.6,
    }
    without = Arch(dict.fromkeys(topology.CELL_TYPES, alpha[:, :2]), {})
    shares = none_edge_share(without, ("max_pool_3x3", "skip_connect"))
    assert set(shares.values()) == {0.0}
