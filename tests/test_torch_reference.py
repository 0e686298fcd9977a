"""The PyTorch yardstick must itself agree with the original code's numbers."""

import gzip
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import cross_entropy  # noqa: E402

from adarts_jax.space.published import PUBLISHED  # noqa: E402
from adarts_jax.torch_reference import derived_network  # noqa: E402
from adarts_jax.torch_reference.derived_network import DerivedNetwork  # noqa: E402
from benchmarks.torch_reference import (  # noqa: E402
    bilevel,
    recipe_weights,
    search_network,
)
from benchmarks.torch_reference.search_network import Architecture  # noqa: E402

ARCH_NAMES = ("alphas_normal", "alphas_reduce", "betas_normal", "betas_reduce")
SMALL_DERIVED = [
    "A3_alpha_genotype1",
    "A3_alpha_genotype2",
    "A3_alpha_allops",
    "A3_alpha_AmoebaNet",
    "A3_alpha_NASNet",
    "A3_darts_DARTS_V1",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """OpenMP threads that wait for a busy core make these tests ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def golden(shared):
    """Return a reader: fixture name -> (arrays, index entry)."""
    folder = shared / "golden"
    index = {
        entry["name"]: entry
        for entry in json.loads((folder / "index.json").read_text())
    }
    specs = json.loads(
        gzip.decompress((folder / "state_dict_specs.json.gz").read_bytes())
    )

    def read(name):
        entry = index[name] | {"spec": specs.get(name)}
        return np.load(folder / f"{name}.npz"), entry

    read.folder = folder
    return read


def unpack(arrays, family):
    """Read one packed family: key -> array (or three projections)."""
    keys = [key.decode() for key in arrays[f"pack/{family}/keys"]]
    data = arrays[f"pack/{family}/data"]
    if data.ndim == 2:
        return dict(zip(keys, data, strict=True))
    shapes = [
        tuple(int(side) for side in text.decode().split(",")) if text else ()
        for text in arrays[f"pack/{family}/shapes"]
    ]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(data, ends[:-1])
    return {k: p.reshape(s) for k, p, s in zip(keys, parts, shapes, strict=True)}


def stored_state(golden, name):
    return torch.load(golden.folder / f"{name}.pt", weights_only=True)


def recipe_state(entry):
    arrays = recipe_weights.recipe_state(
        entry["seed"], entry["spec"], attention_shift="attention-shift" in entry["init"]
    )
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def architecture(arrays, prefix):
    return Architecture(
        *(torch.tensor(arrays[f"{prefix}/{n}"], requires_grad=True) for n in ARCH_NAMES)
    )


def batch(arrays):
    return torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])


def build_search(entry, state):
    network = search_network.SearchNetwork(
        entry["ctor"]["C"],
        entry["ctor"]["layers"],
        entry["ctor"]["num_classes"],
        channel_divisors=entry.get("k_list"),
    )
    network.load_state_dict(state, strict=True)
    return network


def build_derived(entry, state, layout: type[DerivedNetwork]):
    ctor = entry["ctor"]
    network = layout(
        derived_network.Genotype(**entry["genotype"]),
        ctor["C"],
        ctor["layers"],
        ctor["num_classes"],
        auxiliary=ctor["auxiliary"],
    )
    network.load_state_dict(state, strict=True)
    return network


def assert_close(entry, family, got, want):
    tolerance = entry["suggested_tolerance"][family]
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else got
    if "rule" in tolerance:
        worst = np.abs(got - want).max()
        assert worst <= tolerance["rel"] * np.abs(want).max() + tolerance["abs"]
    else:
        np.testing.assert_allclose(got, want, tolerance["rtol"], tolerance["atol"])


def statistics(network):
    return {
        key: value
        for key, value in network.state_dict().items()
        if key.endswith(("running_mean", "running_var"))
    }


def assert_stored(entry, arrays, family, projected, got):
    """Compare tensors with what is stored of them, whole or as projections."""
    stored = [name for name in (family, projected) if f"pack/{name}/keys" in arrays]
    wanted = {name: unpack(arrays, name) for name in stored}
    assert set().union(*wanted.values()) == got.keys()
    for name, packed in wanted.items():
        for key, want in packed.items():
            value = got[key].detach().numpy()
            if name == projected:
                assert_projections_close(entry, family, key, value, want)
            else:
                assert_close(entry, family, value, want)


def assert_projections_close(entry, family, key, value, want):
    """An error of e per element moves a projection by about sqrt(size) * e."""
    tolerance = entry["suggested_tolerance"][family]
    relative = tolerance.get("rel", tolerance.get("rtol"))
    absolute = tolerance.get("abs", tolerance.get("atol"))
    limit = 3 * (relative * want[1] + absolute * np.sqrt(value.size))
    assert np.abs(recipe_weights.projections(0, key, value) - want).max() <= limit, key


def assert_state(entry, arrays, family, network):
    state = network.state_dict()
    for key, want in unpack(arrays, family).items():
        assert_close(entry, family, state[key], want)


@pytest.mark.parametrize("name", ["B1_alpha_small", "B2_alpha16_small"])
def test_search_network_matches_the_original(golden, name):
    arrays, entry = golden(name)
    network = build_search(entry, recipe_state(entry))
    arch = architecture(arrays, "arch")
    images, labels = batch(arrays)

    with torch.no_grad():
        assert_close(entry, "eval", network.eval()(images, arch), arrays["eval/logits"])
    logits = network.train()(images, arch)
    loss = cross_entropy(logits, labels)
    loss.backward()

    assert_close(entry, "train", logits, arrays["train/logits"])
    assert_close(entry, "train", loss, arrays["train/loss"])
    for key, tensor in zip(ARCH_NAMES, arch, strict=True):
        assert_close(entry, "arch_grad", tensor.grad, arrays[f"arch_grad/{key}"])
    gradients = {key: p.grad for key, p in network.named_parameters()}
    assert_stored(entry, arrays, "grad", "gproj", gradients)
    assert_stored(entry, arrays, "after", "afterproj", statistics(network))


def test_recipe_rebuilds_the_stored_weights(golden):
    _, entry = golden("B1_alpha_small")
    stored, rebuilt = stored_state(golden, "B1_alpha_small"), recipe_state(entry)
    assert stored.keys() == rebuilt.keys()
    assert all(torch.equal(stored[key], rebuilt[key]) for key in stored)


def test_five_search_steps_follow_the_original(golden):
    arrays, entry = golden("C1_alpha_first_order")
    _, start = golden("B1_alpha_small")
    network = build_search(start, stored_state(golden, "B1_alpha_small")).train()
    arch = architecture(arrays, "arch0")
    rates = entry["hyperparameters"]
    weights = bilevel.weight_optimizer(network, learning_rate=rates["lr"])
    alphas = bilevel.architecture_optimizer(arch, learning_rate=rates["arch_lr"])

    for step in range(1, 6):
        train, valid = (
            [torch.from_numpy(arrays[f"{split}_{part}"][step - 1]) for part in "xy"]
            for split in ("train", "valid")
        )
        arch_loss = bilevel.architecture_step(network, arch, alphas, *valid)
        loss, logits, norm = bilevel.weight_step(network, arch, weights, *train)
        losses = np.array([arch_loss.item(), loss.item()])
        assert_close(entry, "loss", losses, arrays[f"loss/{step}"])
        assert_close(entry, "train_logits", logits, arrays[f"train_logits/{step}"])
        assert_close(entry, "grad_norm", norm, arrays[f"grad_norm/{step}"])
        for key, logits in zip(ARCH_NAMES, arch, strict=True):
            for family, got in (("arch_grad", logits.grad), ("arch_after", logits)):
                assert_close(entry, family, got, arrays[f"{family}/{step}/{key}"])
        if step in (1, 5):
            assert_state(entry, arrays, f"step{step}", network)

    weights.step()  # the stale step alpha-ADARTS takes at an epoch boundary
    assert_state(entry, arrays, "boundary", network)


def assert_derived_matches(
    golden, name, layout: type[DerivedNetwork] = derived_network.CifarNetwork
):
    arrays, entry = golden(name)
    network = build_derived(entry, recipe_state(entry), layout)
    images, labels = batch(arrays)
    with torch.no_grad():
        logits, auxiliary = network.eval()(images)
    assert auxiliary is None
    assert_close(entry, "eval", logits, arrays["eval/logits"])
    if "train/logits" not in arrays:
        return
    logits, auxiliary = network.train()(images)
    loss = cross_entropy(logits, labels)
    if entry["ctor"]["auxiliary"]:
        assert_close(entry, "train", auxiliary, arrays["train/logits_aux"])
        loss = loss + 0.4 * cross_entropy(auxiliary, labels)
    loss.backward()
    assert_close(entry, "train", logits, arrays["train/logits"])
    assert_close(entry, "train", loss, arrays["train/loss"])
    gradients = {
        key: parameter.grad
        for key, parameter in network.named_parameters()
        if parameter.grad is not None
    }
    assert_stored(entry, arrays, "grad", "gproj", gradients)
    assert_stored(entry, arrays, "after", "afterproj", statistics(network))


@pytest.mark.parametrize("name", SMALL_DERIVED)
def test_derived_network_matches_the_original(golden, name):
    assert_derived_matches(golden, name)


def test_imagenet_network_matches_the_original(golden):
    layout = derived_network.ImageNetNetwork
    assert_derived_matches(golden, "A4_darts_imagenet_DARTS_V2", layout)


@pytest.mark.slow
def test_published_size_network_matches_the_original(golden):
    assert_derived_matches(golden, "A1_alphaadarts_cifar10_full")


def test_networks_with_attention_match_the_original(golden):
    arrays, entry = golden("A5_att_cifar10_small")
    published = PUBLISHED["att_darts"]
    ctor = entry["ctor"]
    network = derived_network.CifarNetwork(
        derived_network.Genotype(
            published.normal,
            published.normal_concat,
            published.reduce,
            published.reduce_concat,
        ),
        ctor["C"],
        ctor["layers"],
        ctor["num_classes"],
        auxiliary=False,
    )
    network.load_state_dict(stored_state(golden, entry["name"]), strict=True)
    with torch.no_grad():
        logits, _ = network.eval()(batch(arrays)[0])
    assert_close(entry, "eval", logits, arrays["eval/logits"])
