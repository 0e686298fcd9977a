"""Attention modules of Att-DARTS alone, against the original (E) and its table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import open_golden, to_nhwc

from adarts_jax.nn.attention_modules import AttentionLayer
from adarts_jax.space.attention_cost import ATTENTION_COSTS
from adarts_jax.space.operations import ATTENTIONS
from adarts_jax.torch_weights.attention_rules import attention_rules
from adarts_jax.torch_weights.layouts import export_state_dict, import_state_dict
from benchmarks.torch_reference.recipe_weights import recipe_state

CHANNELS = 32
# methods.md 2.6: weights at 16, 32 and 64 channels of 32, 16 and 8 pixels.
PUBLISHED = {
    "Identity": (0, 0, 0),
    "SE": (32, 128, 512),
    "BAM": (96, 323, 1173),
    "CBAM": (149, 262, 680),
    "GE_theta-plus": (16448, 8384, 4736),
    "DoubleAttention": (284, 1080, 4208),
}


def shapes_of(name, channels, side):
    images = jnp.zeros((2, side, side, channels))
    layer = AttentionLayer(name, channels)
    return jax.eval_shape(
        lambda key: layer.init(key, images, train=True), jax.random.key(0)
    )


@pytest.mark.parametrize("name", ATTENTIONS)
def test_numbers_of_weights_are_those_of_the_table(name):
    assert PUBLISHED.keys() == set(ATTENTIONS)
    sizes = zip((16, 32, 64), (32, 16, 8), PUBLISHED[name], strict=True)
    for channels, side, count in sizes:
        params = shapes_of(name, channels, side).get("params", {})
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
        assert ATTENTION_COSTS[name](channels, side, side).parameters == count


def close(got, want, key, *, relative=1e-4):
    """Relative to the largest value of the array."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, key
    # biases in front of a batch norm have no gradient but noise
    assert np.abs(got - want).max() <= relative * np.abs(want).max() + 1e-5, key


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_matches_the_original(shared, name):
    golden = open_golden(shared, "E_misc")
    layer, prefix = AttentionLayer(name, CHANNELS), f"attn/{name}/"
    rules = list(attention_rules(name, "m", (name,), channels=CHANNELS))
    spec = golden.entry["attn_state_dict_spec"][name]
    state = recipe_state(golden.entry["attn_init_seed"], spec)
    named = {f"m.{key}": tensor for key, tensor in state.items()}
    template = shapes_of(name, CHANNELS, 8)
    template.setdefault("params", {})
    variables = import_state_dict(named, rules, template)
    kept = {"params": {}, "batch_stats": {}} | variables
    x, cotangent = (to_nhwc(golden[f"attn/{n}"]) for n in ("x", "cotangent"))

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run(variables, x, cotangent):
        def apply(params, x):
            given = {**variables, "params": params}
            return layer.apply(given, x, train=True, mutable=["batch_stats"])

        y, backward, updates = jax.vjp(apply, variables["params"], x, has_aux=True)
        return y, backward(cotangent), updates, layer.apply(variables, x, train=False)

    y, (to_params, to_x), updates, evaluated = run(kept, x, cotangent)
    close(y, to_nhwc(golden[f"{prefix}train_out"]), "train")
    close(evaluated, to_nhwc(golden[f"{prefix}eval_out"]), "eval")
    close(to_x, to_nhwc(golden[f"{prefix}input_grad"]), "input", relative=1e-3)
    found = {
        "grad": export_state_dict({"params": to_params}, rules),
        "after": export_state_dict(dict(updates), rules),
    }
    for key in golden.keys(prefix):
        family, _, tensor = key.removeprefix(prefix).partition("/")
        if tensor:
            ours = found[family][f"m.{tensor}"]
            close(ours, golden[key], key, relative=1e-3)
