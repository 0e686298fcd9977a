"""Options of single methods change what they say, and nothing is random by accident."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adarts_jax as aj
from adarts_jax.architecture import CellWeights
from adarts_jax.bilevel import random_search, steps
from adarts_jax.bilevel.optimizers import make_optimizers
from adarts_jax.data.splits import balanced_splits
from adarts_jax.edges.attended import AttendedEdges
from adarts_jax.edges.grouped import GroupedEdges
from adarts_jax.edges.partial import PartialEdges
from adarts_jax.edges.wave import cell_waves
from adarts_jax.methods.uniform import uniform_architecture
from adarts_jax.nn.attention_modules import AttentionLayer
from adarts_jax.nn.channel_attention import MlpAttention

# No convolution, so that every channel of a result tells where it came from.
SIMPLE = ("none", "skip_connect")
WAVE, CHANNELS, GROUPS = cell_waves(1)[0], 8, 4


def draw(seed: int, *shape: int) -> jax.Array:
    values = np.random.RandomState(seed).standard_normal(shape)
    return jnp.asarray(values, jnp.float32)


def apply(module: Any, *, stride: int = 1, key: Any = None, **weights: Any) -> Any:
    """Run a wave of two edges; return its only sum, and what it recorded."""
    states = tuple(draw(seed, 3, 4, 4, CHANNELS) for seed in (1, 2))
    ops = len(module.primitives)
    given = CellWeights(
        weights.pop("op", jnp.full((2, ops), 1 / ops)), jnp.ones(2), **weights
    )
    rngs = {} if key is None else {"channels": key}
    variables = module.init(
        {"params": jax.random.key(0), "channels": jax.random.key(9)},
        states,
        given,
        train=True,
    )
    kept = {name: variables[name] for name in variables if name != "intermediates"}
    outputs, updates = module.apply(
        kept,
        states,
        given,
        train=key is not None or not _is_random(module),
        rngs=rngs,
        mutable=["batch_stats", "intermediates"],
    )
    records = updates.get("intermediates", {})
    return np.asarray(outputs[0]), records, tuple(map(np.asarray, states))


def _is_random(module: Any) -> bool:
    return getattr(module, "channel_choice", "") == "random"


def partial_edges(choice: Any, primitives: tuple[str, ...] = ("none",)) -> Any:
    return PartialEdges(WAVE, primitives, 1, 4, choice)


@pytest.mark.parametrize("choice", ["first", "random"])
def test_channels_that_go_by_are_untouched(choice):
    """With nothing but ``none`` the chosen channels vanish and all others stay."""
    got, records, states = apply(partial_edges(choice), key=jax.random.key(1))
    total = np.asarray(states[0] + states[1])
    if choice == "first":  # two of eight worked on, shuffled to places 0 and 4
        assert not got[..., [0, 4]].any()
        order = [2, 4, 6, 3, 5, 7]  # shuffle of four blocks of two
        np.testing.assert_allclose(
            got[..., [1, 2, 3, 5, 6, 7]], total[..., order], rtol=1e-6
        )
        return
    chosen = records["selected_channels"][0]
    want = np.zeros_like(total)
    for state, mine in zip(states, chosen, strict=True):
        kept = np.setdiff1d(np.arange(CHANNELS), mine)
        want[..., kept] += np.asarray(state)[..., kept]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_random_channels_are_new_in_every_pass_and_put_back():
    """A pass with the identity alone is the identity, whatever is chosen."""
    module = partial_edges("random", SIMPLE)
    op = jnp.array([[0.0, 1.0]] * 2)
    chosen = []
    for seed in range(3):
        got, records, states = apply(module, key=jax.random.key(seed), op=op)
        np.testing.assert_allclose(got, states[0] + states[1], rtol=1e-5, atol=1e-6)
        chosen.append(np.asarray(records["selected_channels"][0]).tolist())
    assert chosen[0] != chosen[1] != chosen[2]
    _, records, _ = apply(module, op=op)  # evaluated without randomness
    assert np.asarray(records["selected_channels"][0]).tolist() == [[0, 1], [0, 1]]


def test_random_networks_draw_by_seed_and_step():
    network: Any = aj.search_network(
        "pc_darts",
        init_channels=8,
        num_cells=1,
        num_classes=3,
        options={"channel_choice": "random"},
    )
    assert network.edges.keywords == {"channel_choice": "random"}
    state: Any = dataclasses.make_dataclass("State", ["step"])
    keys = [
        steps.pass_key(seed, state(jnp.int32(step)), jnp.int32(phase))
        for seed, step, phase in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    ]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 4


def attended(scores: Any) -> Any:
    return AttendedEdges(WAVE, SIMPLE, 1, 4, MlpAttention, scores)


def test_average_scores_make_images_independent_of_their_neighbours():
    """As published, what is made of an image depends on the rest of its batch."""
    weights = CellWeights(jnp.full((2, 2), 0.5), jnp.ones(2))
    images = draw(1, 40, 4, 4, CHANNELS)
    found: dict[str, Any] = {}
    for scores in ("batch", "average"):
        edges = attended(scores)
        variables = edges.init(
            jax.random.key(0), (images, images), weights, train=False
        )
        before = {k: v for k, v in variables.items() if k != "intermediates"}
        trained, updates = edges.apply(
            before, (images, images), weights, train=True, mutable=["batch_stats"]
        )
        after = before | updates

        def evaluate(part: jax.Array, edges: Any = edges, after: Any = after) -> Any:
            return edges.apply(after, (part, part), weights, train=False)[0]

        alone = jnp.concatenate([evaluate(image[None]) for image in images])
        found[scores] = trained[0], np.allclose(alone, evaluate(images), atol=1e-6)
        assert ("batch_stats" in after) == (scores == "average")
    np.testing.assert_array_equal(found["batch"][0], found["average"][0])
    assert not found["batch"][1]
    assert found["average"][1]


def test_published_weights_have_no_average_scores():
    network: Any = aj.search_network("adarts", options={"channel_scores": "average"})
    with pytest.raises(aj.UserError, match="no average channel scores"):
        aj.torch_weights.search_variables({}, network)


def grouped(**options: Any) -> GroupedEdges:
    return GroupedEdges(WAVE, SIMPLE, 1, **options)


@pytest.mark.parametrize("place", ["before", "after"])
def test_factors_scale_their_groups(place):
    got, _, states = apply(grouped(group_place=place), op=jnp.array([[0.0, 1.0]] * 2))
    factors = np.repeat([0.7, 0.9, 1.1, 1.3], CHANNELS // GROUPS)
    np.testing.assert_allclose(
        got, factors * (states[0] + states[1]), rtol=1e-5, atol=1e-6
    )


def test_factors_can_belong_to_the_architecture():
    method = aj.METHODS["g_darts_a"]
    options = {"group_training": "architecture", "group_initial": (0.5, 2.0)}
    sizes = {"num_cells": 2, "num_nodes": 1, "options": options}
    arch = method.init_architecture(jax.random.key(0), **sizes)
    assert arch.groups.shape == (2, 2, 2)
    network = method.make_network(init_channels=8, num_classes=3, **sizes)
    images = jnp.zeros((2, 8, 8, 3))
    shapes = jax.eval_shape(
        lambda key: network.init(key, arch, images, train=False), jax.random.key(0)
    )
    paths = jax.tree_util.tree_leaves_with_path(shapes["params"])
    assert not any("groups" in jax.tree_util.keystr(path) for path, _ in paths)
    moved, _, states = apply(
        grouped(group_initial=(0.5, 2.0)),
        op=jnp.array([[0.0, 1.0]] * 2),
        groups=jnp.full((2, 2), 3.0),
    )
    np.testing.assert_allclose(
        moved, 3.0 * (states[0] + states[1]), rtol=1e-5, atol=1e-6
    )


def test_activation_and_shuffle_of_groups():
    op = jnp.array([[0.0, 1.0]] * 2)
    plain, _, states = apply(grouped(group_activation="softmax"), op=op)
    factors = np.repeat(jax.nn.softmax(jnp.array([0.7, 0.9, 1.1, 1.3])), 2)
    factors = np.asarray(factors)
    np.testing.assert_allclose(
        plain, factors * (states[0] + states[1]), rtol=1e-5, atol=1e-6
    )
    shuffled, _, _ = apply(grouped(group_activation="softmax", shuffle=True), op=op)
    np.testing.assert_allclose(shuffled[..., [0, 4, 1]], plain[..., [0, 1, 2]])


def test_kernels_of_groups_are_shared_or_not():
    def count(kernels: str) -> int:
        network: Any = aj.search_network(
            "g_pc_darts_a", num_cells=3, options={"group_kernels": kernels}
        )
        arch = aj.init_architecture("g_pc_darts_a", jax.random.key(0))
        images = jnp.zeros((2, 8, 8, 3))
        shapes = jax.eval_shape(
            lambda key: network.init(key, arch, images, train=False), jax.random.key(0)
        )
        wave = shapes["params"]["cell_0"]["wave_0"]["ops"]
        return sum(leaf.size for leaf in jax.tree.leaves(wave))

    assert count("independent") == GROUPS * count("shared")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("darts", {"channel_choice": "random"}, "darts has no option"),
        ("g_darts_a", {"group_inital": (1.0,)}, "did you mean 'group_initial'"),
        ("g_darts_a", {"conv_groups": 3}, "must divide each other"),
    ],
)
def test_options_that_do_not_fit_are_explained(name, options, message):
    with pytest.raises(aj.UserError, match=message):
        aj.search_network(name, options=options)


def test_groups_must_divide_the_channels():
    with pytest.raises(aj.UserError, match="number of groups = 4"):
        aj.search_network("g_darts_a", init_channels=6)


def test_sum_and_product_of_the_branches_of_bam_differ():
    x = draw(3, 2, 6, 6, 16)
    results = []
    for combination in ("product", "sum"):
        layer = AttentionLayer("BAM", 16, bam_combination=combination)
        variables = layer.init(jax.random.key(0), x, train=False)
        results.append(layer.apply(variables, x, train=False))
    assert not np.allclose(*results, rtol=1e-3)


def test_uniform_genotypes_are_uniform():
    """All pairs of edges and all operations but none are equally likely."""
    keys = jax.random.split(jax.random.key(0), 700)
    make = functools.partial(uniform_architecture, num_edges=5, num_primitives=4)
    drawn = jax.jit(jax.vmap(make))(keys)
    choices = np.asarray(drawn.alpha_normal.argmax(-1))
    assert ((choices > 0).sum(1) == 4).all()  # two edges for each of two nodes
    pairs = {tuple(row) for row in choices[:, 2:] > 0}
    assert len(pairs) == 3
    for column in (2, 3, 4):
        share = (choices[:, column] > 0).mean()
        assert abs(share - 2 / 3) < 0.06
    counts = np.bincount(choices[choices > 0], minlength=4)[1:]
    assert np.abs(counts / counts.sum() - 1 / 3).max() < 0.04
    arch = jax.tree.map(lambda leaf: leaf[0], drawn)
    genotype = aj.discretize(
        arch, ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3"), rule="darts"
    )
    kept = {(e.source, e.op) for e in genotype.normal[2:]}
    assert len(kept) == 2


def test_random_search_keeps_the_genotype_of_the_smallest_loss(monkeypatch):
    """No gradient of the architecture has a part in it."""
    method = aj.METHODS["random"]
    arch = method.init_architecture(jax.random.key(0), num_nodes=1)
    losses = iter([2.0, 1.0, 3.0])

    def passed(network: Any, params: Any, arch: Any, stats: Any, batch: Any) -> Any:
        seen.append(arch)
        loss = jnp.float32(next(losses))
        return steps.Gradients(params, arch, stats, loss, loss, loss, jnp.zeros(()))

    seen: list[Any] = []
    monkeypatch.setattr(random_search, "first_order", passed)
    optimizers = make_optimizers()
    params = {"w": jnp.ones(2)}
    state = steps.SearchState(
        jnp.int32(0), params, {}, optimizers.weight.init(params), arch, None
    )
    state = random_search.begin_random_search(state)
    for number in range(3):
        state = dataclasses.replace(state, step=jnp.int32(number))
        state, _ = random_search.random_phase(
            state,
            (jnp.zeros(1), jnp.zeros(1)),
            jnp.int32(steps.ARCHITECTURE),
            network=None,  # pyright: ignore[reportArgumentType]
            optimizers=optimizers,
            weight_learning_rate=0.1,
            architecture_learning_rate=0.1,
            seed=0,
        )
    assert state.arch_opt_state == 1.0
    np.testing.assert_array_equal(state.arch.alpha_normal, seen[1].alpha_normal)
    np.testing.assert_array_equal(state.params["w"], params["w"])


def test_repeating_the_last_step_of_an_epoch_changes_the_weights(monkeypatch):
    """alpha-ADARTS' published code steps again on old gradients between epochs."""
    found = {}
    optimizers = make_optimizers(weight_decay=0.0)
    params = {"w": jnp.ones(2)}
    gradient = {"w": jnp.array([0.1, -0.2])}

    def passed(*arguments: Any) -> Any:
        zero = jnp.zeros(())
        arch = arguments[2]
        return steps.Gradients(gradient, arch, {}, zero, zero, zero, zero)

    monkeypatch.setattr(steps, "first_order", passed)
    arch: Any = aj.init_architecture("darts", jax.random.key(0))
    for repeat in (None, 2):
        state = steps.SearchState(
            jnp.int32(0),
            params,
            {},
            optimizers.weight.init(params),
            arch,
            optimizers.architecture.init(arch),
        )
        walked = []
        for _ in range(2):
            state, _ = steps.search_phase(
                state,
                (jnp.zeros(1), jnp.zeros(1)),
                jnp.int32(steps.WEIGHT),
                network=None,  # pyright: ignore[reportArgumentType]
                optimizers=optimizers,
                weight_learning_rate=1.0,
                architecture_learning_rate=1.0,
                repeat_every=repeat,
            )
            walked.append(state.params["w"][0])
        assert state.step == 2
        found[repeat] = walked
    # buffers 0.1, 0.19, and 0.271 once more
    np.testing.assert_allclose(found[None], [0.9, 0.71], rtol=1e-5)
    np.testing.assert_allclose(found[2], [0.9, 0.439], rtol=1e-5)


def test_balanced_splits_take_the_same_share_of_every_class():
    labels = np.repeat([0, 1, 2], [1000, 400, 40])[::-1]
    parts = balanced_splits(labels, weight_fraction=0.8, fraction=0.125, seed=3)
    assert np.bincount(labels[parts.weight_indices]).tolist() == [100, 40, 4]
    assert np.bincount(labels[parts.architecture_indices]).tolist() == [25, 10, 1]
    again = balanced_splits(labels, weight_fraction=0.8, fraction=0.125, seed=3)
    np.testing.assert_array_equal(parts.weight_indices, again.weight_indices)
    other = balanced_splits(labels, weight_fraction=0.8, fraction=0.125, seed=4)
    assert not np.array_equal(parts.weight_indices, other.weight_indices)
    with pytest.raises(aj.UserError, match="class 1 has 1 training image"):
        balanced_splits(np.array([0, 0, 1]), weight_fraction=0.5, fraction=1.0, seed=0)
