"""A network over a split: every image once, in order; scores by their definition."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adarts_jax as aj
from adarts_jax.data.augment import normalize
from adarts_jax.engine.evaluation import (
    Normalization,
    class_accuracy,
    compile_evaluator,
    confusion_matrix,
    score,
)
from adarts_jax.networks.derived_network import DerivedNetwork, init_variables

CELL = [("max_pool_3x3", 0), ("skip_connect", 1)]
NETWORK = DerivedNetwork(
    aj.Genotype(CELL, [2], CELL, [2]), init_channels=2, num_cells=1, num_classes=3
)
NORMALIZATION = Normalization((0.4,), (0.3,))


@pytest.fixture(scope="module")
def variables():
    return init_variables(NETWORK, jax.random.key(0), (4, 4, 1))


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (7, 4, 4, 1), np.uint8)


@pytest.fixture(scope="module")
def wanted(variables, pixels):
    images = normalize(jnp.asarray(pixels), (0.4,), (0.3,))
    return np.asarray(NETWORK.apply(variables, images, train=False)[0])


@pytest.mark.parametrize("where", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("batch_size", [3, 100])
def test_every_image_gets_its_own_logits(variables, pixels, wanted, where, batch_size):
    images, done = where(pixels), []
    evaluator = compile_evaluator(
        NETWORK, variables, images, batch_size=batch_size, normalization=NORMALIZATION
    )
    logits = evaluator.logits(variables, images, progress=done.append)
    assert evaluator.batch_size == min(batch_size, 7)
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-6)
    assert done[-1] == len(pixels)


def test_normalised_images_are_taken_as_they_are(variables, pixels, wanted):
    images = np.asarray(normalize(jnp.asarray(pixels), (0.4,), (0.3,)))
    evaluator = compile_evaluator(
        NETWORK, variables, images, batch_size=4, normalization=None
    )
    logits = evaluator.logits(variables, images)
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-6)


LOGITS = np.log(
    np.array(
        [
            [0.5, 0.2, 0.1, 0.1, 0.05, 0.05],
            [0.1, 0.1, 0.5, 0.1, 0.1, 0.1],
            [0.3, 0.3, 0.1, 0.1, 0.1, 0.1],
        ],
        np.float32,
    )
)


def test_scores_are_what_their_names_say():
    # Right; wrong and the last of five equals; the first of two equals.
    found = score(LOGITS, np.array([0, 5, 0]))
    assert (found.num_images, found.correct) == (3, 2)
    assert found.top1 == pytest.approx(2 / 3)
    assert found.top5 == pytest.approx(2 / 3)
    wanted = -(math.log(0.5) + math.log(0.1) + math.log(0.3)) / 3
    assert found.loss == pytest.approx(wanted, rel=1e-6)


def test_the_first_of_equal_logits_is_the_prediction():
    assert score(LOGITS[2:], np.array([1])).correct == 0
    assert score(LOGITS[1:2], np.array([4])).top5 == 1.0


def test_large_logits_do_not_overflow():
    assert score(np.array([[3e4, -3e4]], np.float32), np.array([1])).loss == 6e4


def test_a_network_that_broke_down_is_never_right():
    found = score(np.full((2, 3), np.nan, np.float32), np.array([0, 1]))
    assert (found.correct, found.top1, found.top5) == (0, 0.0, 0.0)
    assert math.isnan(found.loss)


def test_confusion_has_a_row_per_label():
    labels = np.array([0, 0, 2], np.int32)
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2]]
    confusion = confusion_matrix(logits, labels)
    np.testing.assert_array_equal(confusion, [[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    assert class_accuracy(confusion) == [0.5, None, 1.0]
