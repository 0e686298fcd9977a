"""The benchmarks measure what they say: settings, floors, variants that agree."""

import sys

import jax
import numpy as np
import pytest
from jax.experimental import topologies

from adarts_jax.config import SearchConfig
from adarts_jax.retrain_config import RetrainConfig
from benchmarks import (
    engine_programs,
    floor,
    gpu_forecast,
    lowerings,
    network_calls,
    retrain_step,
    timing,
)
from benchmarks import search_step_workers as workers
from benchmarks.network_calls import Call


def assert_same_size(setting, config):
    assert setting.init_channels == config.network.init_channels
    assert setting.num_cells == config.network.num_cells
    assert setting.batch_size == config.batch_size


def test_the_digits_setting_is_a_search_without_any_option():
    setting, config = workers.SETTINGS["digits"], SearchConfig()
    assert_same_size(setting, config)
    assert config.data.source == "digits"
    assert (setting.image_size, setting.image_channels) == (8, 1)


@pytest.mark.parametrize("name", ["digits", "small", "full"])
def test_training_steps_and_epochs_are_of_the_same_networks(name):
    step, epoch = retrain_step.SETTINGS[name], engine_programs.SETTINGS[name]
    values = engine_programs.read_recipe(epoch.retrain_recipe, epoch.retrain_changes)
    config = RetrainConfig(**values)
    assert_same_size(step, config)
    assert config.network.auxiliary == step.auxiliary
    assert (config.network.drop_path_rate > 0) == (step.drop_path_rate > 0)
    assert config.genotype == step.genotype
    assert epoch.image_shape == step.image_shape


@pytest.mark.parametrize("name", ["digits", "small", "full"])
def test_steps_and_epochs_are_of_the_same_networks(name):
    step, epoch = workers.SETTINGS[name], engine_programs.SETTINGS[name]
    values = engine_programs.read_recipe(epoch.search_recipe, epoch.search_changes)
    config = SearchConfig(**values)
    assert_same_size(step, config)
    assert epoch.image_shape == (step.image_size,) * 2 + (step.image_channels,)


def test_a_second_start_without_a_first_one_is_no_row(monkeypatch):
    monkeypatch.setattr(workers, "_fill_cache", sys.exit)  # takes no two arguments
    with pytest.raises(timing.CannotRun, match="ended with status 1"):
        workers.second_start_worker(workers.SETTINGS["tiny"])


def test_a_forecast_without_a_compiler_says_what_to_install(monkeypatch):
    def no_topology(**_):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setenv("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # restored afterwards
    monkeypatch.setattr(topologies, "get_topology_desc", no_topology)
    with pytest.raises(SystemExit, match=r"pip install .*cuda13"):
        gpu_forecast.main(["--setting", "tiny"])


def test_the_floor_is_the_slower_of_memory_and_arithmetic():
    rates = {
        "copy_bytes_per_second": 100.0,
        "matrix_flops_per_second": {floor.DEFAULT: 10.0},
    }
    work = {"flops": 5.0, "bytes_accessed": 200.0, "bytes_once": 20.0}
    found = floor.compare(work | {"products": floor.DEFAULT}, 4.0, rates)
    assert found["floor_seconds"] == 2.0  # memory
    assert found["floor_seconds_bytes_once"] == 0.5  # arithmetic
    assert found["ratio_to_floor"] == 2.0
    assert found["ratio_to_floor_bytes_once"] == 8.0
    assert (found["bytes_per_second"], found["flops_per_second"]) == (50.0, 1.25)


def test_the_work_of_a_repetition_is_that_of_its_calls():
    x = jax.ShapeDtypeStruct((64, 64), np.float32)
    product = jax.jit(lambda a, b: a @ b).lower(x, x).compile()
    work = floor.count([product] * 3, unread=4 * 64**2)
    assert work["flops"] == pytest.approx(3 * 2 * 64**3, rel=0.01)
    assert work["bytes_once"] == 3 * 2 * 4 * 64**2  # of three arrays, one unread
    assert work["bytes_accessed"] >= 3 * 3 * 4 * 64**2


@pytest.mark.parametrize(
    "call",
    [
        Call("depthwise", (1, 2, 5, 6, 4), (3, 5), 1, 2),
        Call("depthwise", (2, 2, 6, 6, 4), (3, 5), 2),
        Call("max_pool", (1, 2, 6, 6, 4), (3, 5), 2),
        Call("avg_pool", (1, 2, 6, 5, 4), (3,), 1),
    ],
    ids=str,
)
def test_all_variants_of_a_pass_compute_the_same(call):
    given = lowerings.arguments(call)
    for variants in lowerings.passes(call).values():
        first, *others = (jax.jit(f)(*given) for f in variants.values())
        assert others
        for other in others:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
                jax.tree.leaves(first),
                jax.tree.leaves(other),
            )


def test_the_calls_of_a_network_are_found():
    calls = network_calls.NETWORKS["tiny"]()
    # two kernels of each family, in three cells of four waves
    assert sum(n for call, n in calls.items() if call.kind == "max_pool") == 12
    assert sum(n for call, n in calls.items() if call.kind == "depthwise") == 36
    (heavy, uses), second = network_calls.heaviest(calls, "depthwise", 2)
    assert heavy.products * uses >= second[0].products * second[1]


@pytest.mark.parametrize("name", ["torch", "torch-channels-last", "torch-bf16"])
def test_rows_of_pytorch_compute_the_same(name):
    torch = pytest.importorskip("torch")
    from benchmarks import plain_torch

    variant, device = plain_torch.VARIANTS[name], torch.device("cpu")
    torch.manual_seed(0)
    network = torch.nn.Conv2d(2, 3, 3)
    batch = np.ones((2, 4, 4, 2), np.float32), np.array([0, 1], np.int32)
    images, labels = plain_torch.put_batch(batch, variant, device)
    expected = network(images)
    found = plain_torch.place(network, variant, device)(images)
    assert labels.dtype == torch.int64
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=2e-2)
    is_last = images.is_contiguous(memory_format=torch.channels_last)
    assert is_last == variant.channels_last
    assert torch.equal(found, expected) == (not variant.bfloat16)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_row_that_cannot_run_is_left_out_in_one_line():
    from benchmarks import timing

    script = (
        "from benchmarks import timing\n"
        "with timing.private_stdout() as replies:\n"
        "    timing.serve({'cannot_run': 'no GPU'}, {}, replies)\n"
    )
    with pytest.raises(timing.CannotRun, match="no GPU"):
        timing.Worker("row", [sys.executable, "-c", script], {})
