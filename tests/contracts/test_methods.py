"""Promises of every search method, none of them by name."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adarts_jax as aj
from adarts_jax.bilevel.gradients import first_order
from adarts_jax.space.cost import search_network_cost
from adarts_jax.space.operations import ATTENTIONS

# Weights of the published sizes (16 channels, 8 cells, 10 classes) by divisors, all
# that the papers and their code tell. A method cannot be added without its numbers.
SIZES = {
    "alpha_adarts": {
        (4,) * 8: 433_978,
        (16, 8, 4, 4, 4, 4, 2, 1): 903_034,
        (1, 2, 4, 4, 4, 4, 8, 16): 416_170,
    },
    "adarts": {(4,) * 8: 521_786},
    "pc_darts": {(4,) * 8: 299_578},
    "darts": {(1,) * 8: 1_930_618},
    "att_darts_s": {(1,) * 8: 3_309_282},
    # counted here, because no size is published: the last one without its double
    # attentions, DARTS with 448 factors of groups, and so on
    "att_darts_p": {(1,) * 8: 3_079_234},
    "darts_with_attention": {(1,) * 8: 1_930_618 + 448},
    "g_darts_a": {(1,) * 8: 900_410},
    "g_pc_darts_a": {(1,) * 8: 299_578 + 448},
    "random": {(1,) * 8: 1_930_618},
}
# Compiling takes six seconds each, that of Att-DARTS half a minute.
QUICK = ("alpha_adarts", "pc_darts", "g_pc_darts_a")

CASES = [
    pytest.param(
        method, divisors, count, marks=[pytest.mark.slow] * (method not in QUICK)
    )
    for method, sizes in SIZES.items()
    for divisors, count in sizes.items()
]
# What the cost of a search network depends on, besides primitives and divisors.
COSTS = {
    "alpha_adarts": {"channel_attention": "alpha_adarts"},
    "adarts": {"channel_attention": "adarts"},
    "att_darts_s": {"edge_attentions": ATTENTIONS},
    "att_darts_p": {"edge_attentions": ATTENTIONS[:-1]},
    "darts_with_attention": {"edge_factors": 4},
    "g_darts_a": {"edge_factors": 4, "conv_groups": 4},
}
SHARED_KERNELS = {"g_pc_darts_a": 448}  # the cost of PC-DARTS and some factors
BATCH, SIDE, NUM_NODES = 3, 8, 2


def draw_batch(seed):
    random = np.random.RandomState(seed)
    images = random.standard_normal((BATCH, SIDE, SIDE, 3)).astype(np.float32)
    return jnp.asarray(images), jnp.asarray(random.randint(0, 4, BATCH))


def tiny(name):
    """Both cell types and two waves per cell; plain start with visible logits."""
    method = aj.find_method(name)
    network = method.make_network(
        init_channels=8, num_cells=3, num_classes=4, num_nodes=NUM_NODES
    )
    arch = method.init_architecture(
        jax.random.key(1), initialization="plain", num_nodes=NUM_NODES
    )
    return network, jax.tree.map(lambda leaf: 500 * leaf, arch)


METHOD_PARAMS = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in aj.METHODS
]


@pytest.fixture(scope="module", params=METHOD_PARAMS)
def compiled(request):
    """Return the compiled pass of one method and its inputs, run once."""
    network, arch = tiny(request.param)
    images, _ = batch = draw_batch(0)
    # drawn here, because compiling `init` would take as long as the rest
    shapes = jax.eval_shape(
        lambda key: network.init(key, arch, images, train=False), jax.random.key(0)
    )
    leaves, structure = jax.tree.flatten(shapes)
    random = np.random.RandomState(2)
    drawn = [0.5 + 0.3 * random.standard_normal(leaf.shape) for leaf in leaves]
    variables = structure.unflatten([jnp.asarray(x, jnp.float32) for x in drawn])

    @jax.jit
    def run(params: Any, arch: Any, batch_stats: Any, batch: Any) -> Any:
        return first_order(network, params, arch, batch_stats, batch)

    inputs = variables["params"], arch, variables["batch_stats"]
    return run, inputs, run(*inputs, batch)


def test_sizes_are_known_for_every_method():
    assert SIZES.keys() == aj.METHODS.keys()


@pytest.mark.parametrize(("name", "divisors", "count"), CASES)
def test_number_of_weights(name, divisors, count):
    network: Any = aj.search_network(name, channel_divisor=divisors)
    arch = aj.init_architecture(name, jax.random.key(0))
    images = jnp.zeros((2, 32, 32, 3))
    shapes = jax.eval_shape(
        lambda key: network.init(key, arch, images, train=False), jax.random.key(0)
    )
    found = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))
    shared = SHARED_KERNELS.get(name, 0)
    cost = search_network_cost(
        aj.METHODS[name].primitives,
        channel_divisors=4 if shared else divisors,
        **COSTS.get(name, {}),
    )
    assert found == cost.parameters + shared == count


def test_every_architecture_parameter_learns(compiled):
    _, (_, arch, _), result = compiled
    leaves = jax.tree_util.tree_leaves_with_path(result.arch)
    assert len(leaves) == len(jax.tree.leaves(arch)) >= 2
    for path, gradient in leaves:
        name = jax.tree_util.keystr(path)
        assert jnp.isfinite(gradient).all(), name
        assert gradient.all(), f"{name}: some entries never learn"


def test_every_weight_learns(compiled):
    _, (params, _, _), result = compiled
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (params, result.params)]
    assert shapes[0] == shapes[1]
    silent, attentions = [], 0
    for path, gradient in jax.tree_util.tree_leaves_with_path(result.params):
        name = jax.tree_util.keystr(path)
        assert jnp.isfinite(gradient).all(), name
        attentions += "attention" in name
        silent += [] if gradient.any() else [name]
    # relu may silence the attention of an edge, but not of all edges
    assert all("attention" in name for name in silent), silent
    assert len(silent) < max(attentions, 1)


def test_result_of_a_pass(compiled):
    _, (_, _, batch_stats), result = compiled
    assert result.logits.shape == (BATCH, 4)
    assert result.logits.dtype == jnp.float32
    assert result.loss > 0
    assert jnp.isfinite(result.loss)
    assert 0 <= result.accuracy <= 1
    for before, after in zip(
        jax.tree.leaves(batch_stats), jax.tree.leaves(result.batch_stats), strict=True
    ):
        assert after.dtype == before.dtype == jnp.float32
        assert (before != after).any()


def test_no_second_compilation(compiled):
    run, (params, arch, batch_stats), result = compiled
    moved = jax.tree.map(lambda leaf: leaf * 1.01, (params, arch, batch_stats))
    again = run(*moved, draw_batch(1))
    assert run._cache_size() == 1
    assert again.loss != result.loss


@pytest.mark.parametrize("name", aj.METHODS)
def test_genotype_is_valid(name):
    method = aj.METHODS[name]
    for seed, initialization in enumerate(method.initializations):
        key = jax.random.key(seed)
        arch = aj.init_architecture(name, key, initialization=initialization)
        genotype = aj.discretize(
            arch,
            method.primitives,
            rule=method.discretize_rule,
            attentions=method.attentions,
        )
        assert aj.Genotype.from_json(genotype.to_json()) == genotype
        for entries in (genotype.normal, genotype.reduce):
            assert len(entries) == 8
            assert all(entry.op in method.primitives for entry in entries)
            assert all(entry.op != "none" for entry in entries)
            found = {entry.attention for entry in entries}
            assert found <= set(method.attentions or [None])


@pytest.mark.parametrize("name", aj.METHODS)
def test_architecture_has_the_methods_tensors(name):
    method = aj.METHODS[name]
    arch = aj.init_architecture(name, jax.random.key(0))
    assert arch.alpha_normal.shape == (14, len(method.primitives))
    assert arch.alpha_reduce.shape == arch.alpha_normal.shape
    assert (arch.beta_normal is not None) == method.edge_normalization
    logits = arch.attention_normal
    assert (0 if logits is None else logits.shape[1]) == len(method.attentions)
    tensors = jax.tree.leaves(arch)
    assert len({tuple(np.ravel(tensor)) for tensor in tensors}) == len(tensors)
    again = aj.init_architecture(name, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, arch, again)


@pytest.mark.parametrize("name", aj.METHODS)
def test_biased_start_favours_one_primitive(name):
    method = aj.METHODS[name]
    if method.biased_primitive is None:
        assert "biased" not in method.initializations
        with pytest.raises(aj.UserError, match="choose from"):
            aj.init_architecture(name, jax.random.key(0), initialization="biased")
        return
    column = method.primitives.index(method.biased_primitive)
    arch = aj.init_architecture(name, jax.random.key(0), initialization="biased")
    for alpha in (arch.alpha_normal, arch.alpha_reduce):
        np.testing.assert_allclose(alpha[:, column], 1e-3, rtol=1e-6)
        others = np.delete(np.asarray(alpha), column, axis=1)
        assert 0.4e-3 < others.std() < 0.6e-3
    plain = aj.init_architecture(name, jax.random.key(0), initialization="plain")
    assert 0.8e-3 < np.std(plain.alpha_normal) < 1.2e-3
