"""Initial weights: PyTorch's intervals, and one draw for a whole network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from adarts_jax.nn import initial_weights
from adarts_jax.nn.initial_weights import draw_together, torch_uniform


class TwoLayers(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(300, kernel_init=torch_uniform(4), name="first")(x)
        return nn.Dense(300, kernel_init=torch_uniform(100), name="second")(x)


def draw(key, *, compiled: bool = False):
    def init(key):
        return draw_together(TwoLayers().init, key, jnp.zeros((1, 400)))["params"]

    return (jax.jit(init) if compiled else init)(key)


@pytest.mark.parametrize("fan_in", [1, 25, 400])
def test_torch_uniform_fills_its_interval(fan_in):
    values = initial_weights.torch_uniform(fan_in)(jax.random.key(1), (4000,))
    bound = fan_in**-0.5
    assert np.abs(values).max() <= bound
    assert values.max() > 0.99 * bound
    assert values.min() < -0.99 * bound
    assert abs(values.mean()) < 0.05 * bound


def test_every_weight_drawn_together_fills_its_own_interval():
    params = draw(jax.random.key(3))
    for name, bound in (("first", 0.5), ("second", 0.1)):
        kernel = np.asarray(params[name]["kernel"])
        assert 0.999 * bound < kernel.max() <= bound
        assert -bound <= kernel.min() < -0.999 * bound
        assert abs(kernel.mean()) < 0.01 * bound
        np.testing.assert_array_equal(params[name]["bias"], 0)


def test_weights_drawn_together_share_no_number():
    params = draw(jax.random.key(3))
    units = [np.ravel(params["first"]["kernel"]) / 0.5]
    units.append(np.ravel(params["second"]["kernel"]) / 0.1)
    assert abs(np.corrcoef(units[0][:90_000], units[1])[0, 1]) < 0.02


def test_the_draw_depends_on_the_key_alone():
    first, again = draw(jax.random.key(3)), draw(jax.random.key(3), compiled=True)
    other = draw(jax.random.key(4))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first["first"]["kernel"] != other["first"]["kernel"]).mean() > 0.99


def test_initialisation_by_itself_is_as_before_afterwards():
    x = jnp.zeros((1, 400))
    before = TwoLayers().init(jax.random.key(0), x)
    draw(jax.random.key(3))
    after = TwoLayers().init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, before, after)
