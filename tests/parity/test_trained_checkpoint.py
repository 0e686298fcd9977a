"""A network trained by the original program, on all real test images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import open_golden

import adarts_jax as aj
from adarts_jax.data import sources
from adarts_jax.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from adarts_jax.networks.derived_network import DerivedNetwork
from adarts_jax.space.published import PUBLISHED

NAME = "T1_trained_cifar10_c8_l5"
BATCH = 500


@pytest.mark.slow
def test_the_trained_network_gives_the_originals_answers(shared):
    torch = pytest.importorskip("torch")
    golden = open_golden(shared, NAME)
    size = golden.entry["ctor"]
    network = DerivedNetwork(
        PUBLISHED["alpha_adarts"],
        size["C"],
        size["layers"],
        size["num_classes"],
        auxiliary=size["auxiliary"],
    )
    stored = torch.load(shared / "golden" / f"{NAME}.pt", weights_only=True)
    state = {key: tensor.numpy() for key, tensor in stored.items()}
    variables = aj.torch_weights.derived_variables(state, network)
    data = sources.load(
        "tfds", split="test", name="cifar10", data_dir=str(shared / "data" / "tfds")
    )

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})
    def evaluate(images):
        normalised = normalize(images, CIFAR10_MEAN, CIFAR10_STD)
        return network.apply(variables, normalised, train=False)[0]

    batches = data.images.reshape(-1, BATCH, *data.image_shape)
    logits = np.concatenate([evaluate(jnp.asarray(batch)) for batch in batches])

    np.testing.assert_array_equal(data.labels, golden["labels"])
    wanted = golden["logits"]
    assert np.abs(logits - wanted).max() <= 1e-4 * np.abs(wanted).max()
    predictions = logits.argmax(-1)
    assert (predictions != golden["predictions"]).sum() <= 2
    correct = (predictions == data.labels).sum()
    assert abs(correct - golden["correct"]) <= 2
    assert golden["correct"] == golden.entry["correct"] == 6228
