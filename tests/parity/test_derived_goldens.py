"""Derived networks against the originals: every array of A1 to A5, drop path of E."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derived_pass import CHEAP, eval_logits, initial_state, make_network, run
from golden import (
    Golden,
    assert_close,
    assert_family_close,
    open_golden,
    to_nhwc,
)

import adarts_jax as aj
from adarts_jax.networks.derived_cell import DerivedCell
from adarts_jax.networks.derived_network import variable_shapes
from adarts_jax.nn.drop_path import drop_path
from adarts_jax.space.published import PUBLISHED
from adarts_jax.space.stack import CellPlace
from adarts_jax.torch_weights.derived_rules import cell_rules
from adarts_jax.torch_weights.layouts import import_state_dict
from benchmarks.torch_reference.recipe_weights import recipe_state

# Every operation at both strides; the auxiliary head.
QUICK = ["A3_alpha_allops", "A3_alpha_genotype1"]
SLOW = [
    "A3_alpha_ADARTS_V1",
    "A3_alpha_ADARTS_V2",
    "A3_alpha_AmoebaNet",
    "A3_alpha_NASNet",
    "A3_alpha_genotype2",
    "A3_darts_DARTS_V1",
    "A3_darts_DARTS_V2",
    "A3_pc_PC_DARTS_cifar",
    "A4_darts_imagenet_DARTS_V2",
    "A5_att_cifar10_small",
    "A5_att_cifar100_small",
    "A5_att_synthetic",
]
TRAINED = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
FULL_SIZE = "A1_alphaadarts_cifar10_full"
FULL_SIZE_100 = "A2_alphaadarts_cifar100_full"


@pytest.mark.parametrize("name", TRAINED)
def test_derived_network_matches_the_original(shared, name):
    golden = open_golden(shared, name)
    done = run(golden)
    for prefix in ("", "f64/"):
        want = golden[f"{prefix}eval/logits"]
        assert_close(golden, "eval", done.eval_logits, want, prefix)
        assert_close(golden, "train", done.logits, golden[f"{prefix}train/logits"])
    if done.logits_aux is not None:
        for key in ("train/logits_aux", "f64/train/logits_aux"):
            assert_close(golden, "train", done.logits_aux, golden[key], key)
    for key in golden.keys("train/loss"):
        loss = done.losses[key.removeprefix("train/")]
        assert_close(golden, "train", loss, golden[key], key)
    assert_close(golden, "train", done.losses["loss"], golden["f64/train/loss"])
    assert_family_close(golden, "grad", done.gradients, projected="gproj")
    assert_family_close(golden, "after", done.after, projected="afterproj")
    golden.assert_all_read()


def full_size_state(golden: Golden, shared) -> dict[str, np.ndarray]:
    """Weights of A1, with the four classifier tensors that A2 replaces."""
    return initial_state(open_golden(shared, FULL_SIZE)) | golden.family("override")


@pytest.mark.slow
@pytest.mark.parametrize("name", [FULL_SIZE, FULL_SIZE_100, "A5_att_cifar10_full"])
def test_published_size_matches_the_original(shared, name):
    golden = open_golden(shared, name)
    network = make_network(golden)
    if golden.entry["group"] == "A5":
        state = initial_state(golden)
    else:
        state = full_size_state(golden, shared)
    variables = aj.torch_weights.derived_variables(state, network)
    assert golden["y"].ndim == 1  # labels are stored, but there is no loss
    evaluate = jax.jit(functools.partial(eval_logits, network), compiler_options=CHEAP)
    logits = evaluate(variables, to_nhwc(golden["x"]))
    for key in ("eval/logits", "f64/eval/logits"):
        assert_close(golden, "eval", logits, golden[key], key)
    golden.assert_all_read()


def test_the_published_file_is_read_whole(shared):
    torch = pytest.importorskip("torch")
    golden = open_golden(shared, FULL_SIZE)
    stored = torch.load(shared / "golden" / f"{FULL_SIZE}.pt", weights_only=True)
    stored = {key: tensor.numpy() for key, tensor in stored.items()}
    network = make_network(golden)

    variables = aj.torch_weights.derived_variables(stored, network)

    shapes = variable_shapes(network, (32, 32, 3))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)
    back = aj.torch_weights.derived_state_dict(variables, network)
    weights = [key for key in stored if not key.endswith("num_batches_tracked")]
    assert list(back) == weights
    for key in weights:
        np.testing.assert_array_equal(back[key], stored[key], err_msg=key)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_drop_path_matches_the_original(shared, case):
    golden = open_golden(shared, "E_misc")
    x, mask, rate, want = (
        golden[f"drop_path/{case}/{name}"] for name in ("in", "mask", "prob", "out")
    )
    scale = jnp.asarray(mask.ravel() / (1 - rate), jnp.float32)
    ours = drop_path(to_nhwc(x), scale)
    np.testing.assert_allclose(ours, to_nhwc(want), rtol=1e-6)


@pytest.mark.parametrize("cell_type", ["normal", "reduce"])
def test_drop_path_in_a_cell_matches_the_original(shared, cell_type):
    golden = open_golden(shared, "E_misc")
    about = golden.entry["drop_path_cell"]
    genotype = PUBLISHED["alpha_adarts"]  # the original's genotype1
    entries, concat = genotype.entries(cell_type), genotype.concat(cell_type)
    inputs = (about["C_prev_prev"], about["C_prev"])
    place = CellPlace(cell_type, False, about["C"], inputs, ((8, 8), (8, 8)))
    cell = DerivedCell(entries, concat, about["C"], cell_type == "reduce", train=True)
    s0, s1 = (to_nhwc(golden[f"drop_path_cell/{cell_type}/{s}"]) for s in ("s0", "s1"))

    spec = golden.entry["drop_path_cell_state_dict_spec"][cell_type]
    state = recipe_state(golden.entry["drop_path_cell_init_seed"], spec)
    template = jax.eval_shape(lambda key: cell.init(key, s0, s1), jax.random.key(0))
    named = {f"cell.{key}": tensor for key, tensor in state.items()}
    rules = cell_rules("cell", (), entries, place)
    variables = import_state_dict(named, list(rules), template)

    scales = np.full((len(entries), len(s0)), np.nan, np.float32)
    masked = golden[f"drop_path_cell/{cell_type}/masked_ops"]
    masks = golden[f"drop_path_cell/{cell_type}/masks"][:, :, 0, 0, 0]
    scales[masked] = masks / (1 - about["drop_prob"])

    @functools.partial(jax.jit, compiler_options=CHEAP)
    def apply(variables, *inputs):
        return cell.apply(variables, *inputs, mutable=["batch_stats"])[0]

    ours = apply(variables, s0, s1, jnp.asarray(scales))
    want = to_nhwc(golden[f"drop_path_cell/{cell_type}/out"])
    np.testing.assert_allclose(ours, want, rtol=1e-4, atol=1e-5)
