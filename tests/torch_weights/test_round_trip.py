"""Any derived network: to PyTorch and back is the identity, the logits are the same."""

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import adarts_jax as aj  # noqa: E402
from adarts_jax.engine.verification import verify  # noqa: E402
from adarts_jax.model_directory import Model  # noqa: E402
from adarts_jax.model_spec import ModelSpec  # noqa: E402
from adarts_jax.networks.derived_network import variable_shapes  # noqa: E402
from adarts_jax.torch_weights.inference import infer_size  # noqa: E402
from adarts_jax.torch_weights.reader import read_state_dict  # noqa: E402
from adarts_jax.torch_weights.writer import write_state_dict  # noqa: E402

OPERATIONS = [
    *("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3", "max_pool_5x5"),
    *("avg_pool_5x5", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7"),
    *("dil_conv_3x3", "dil_conv_5x5", "conv_7x1_1x7"),
]


ATTENTIONS = ["Identity", "SE", "BAM", "CBAM", "DoubleAttention"]


@st.composite
def cells(draw, attends):
    nodes = draw(st.integers(1, 3))
    entries = [
        (draw(st.sampled_from(OPERATIONS)), draw(st.integers(0, node + 1)))
        for node in range(nodes)
        for _ in range(2)
    ]
    if attends:
        entries = [(*entry, draw(st.sampled_from(ATTENTIONS))) for entry in entries]
    last = nodes + 1
    concat = draw(st.lists(st.integers(2, last), min_size=1, max_size=3, unique=True))
    return entries, sorted(concat)


@st.composite
def specs(draw):
    stem, side, auxiliary = draw(
        st.sampled_from(
            [("cifar", 8, False), ("cifar", 32, True), ("imagenet", 32, False)]
        )
    )
    channels, classes = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    attends = draw(st.sampled_from([False, False, True]))
    return ModelSpec(
        genotype=aj.Genotype(*draw(cells(attends)), *draw(cells(attends))),
        # Attentions divide the width by 16.
        init_channels=16 if attends else draw(st.sampled_from([2, 4, 6])),
        num_cells=draw(st.integers(1, 4)),
        num_classes=classes,
        stem=stem,
        auxiliary=auxiliary,
        image_size=(side, side),
        image_channels=channels,
        normalization_mean=(0.5,) * channels,
        normalization_std=(0.5,) * channels,
        class_names=tuple(map(str, range(classes))),
    )


def random_model(spec: ModelSpec) -> Model:
    """Weights of every kind drawn at random, statistics too: parity is never luck."""
    network, draw = spec.make_network(), np.random.default_rng(0)

    def values(path, leaf):
        if path[-1].key in ("var", "scale"):
            return draw.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        return (draw.standard_normal(leaf.shape) / fan_in**0.5).astype(np.float32)

    shapes = variable_shapes(network, spec.image_shape)
    return Model(network, jax.tree.map_with_path(values, shapes), spec)


def through_a_file(model: Model, path) -> dict[str, np.ndarray]:
    tensors = aj.torch_weights.derived_state_dict(model.variables, model.network)
    write_state_dict(path, tensors, num_batches_tracked=3)
    return read_state_dict(path)


def examples(count):
    return hypothesis.settings(
        max_examples=count,
        deadline=None,
        derandomize=True,  # the time it takes, too, is the same in every run
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


@examples(8)
@hypothesis.given(spec=specs())
def test_there_and_back_is_the_identity(tmp_path_factory, spec):
    model = random_model(spec)
    state = through_a_file(model, tmp_path_factory.mktemp("pt") / "net.pt")
    back = aj.torch_weights.derived_variables(state, model.network)
    jax.tree.map(np.testing.assert_array_equal, back, model.variables)
    size = infer_size(state)
    assert size.make_network(spec.genotype) == model.network
    assert size.image_channels == spec.image_channels


def check_logits(folder, spec):
    model = random_model(spec)
    state = through_a_file(model, folder / "net.pt")
    images = np.random.default_rng(1).standard_normal((8, *spec.image_shape))
    found = verify(model, state, images.astype(np.float32))
    assert found.passed, found
    assert ("auxiliary_logits" in found.outputs) == spec.auxiliary


@examples(5)
@hypothesis.given(spec=specs())
def test_pytorch_gives_the_same_logits(tmp_path_factory, spec):
    check_logits(tmp_path_factory.mktemp("pt"), spec)


@pytest.mark.slow
@examples(40)
@hypothesis.given(spec=specs())
def test_pytorch_gives_the_same_logits_for_many(tmp_path_factory, spec):
    check_logits(tmp_path_factory.mktemp("pt"), spec)
