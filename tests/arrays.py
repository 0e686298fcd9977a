"""Random arrays and their comparison, for tests."""

import jax.numpy as jnp
import numpy as np


def draw(seed, *shape):
    return jnp.asarray(np.random.RandomState(seed).standard_normal(shape), jnp.float32)


def assert_near(got, want, relative=1e-5):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= relative * np.abs(want).max()
