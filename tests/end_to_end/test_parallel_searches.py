"""Several searches of one run are the searches that their seeds give alone.

The host side on a linear classifier in the place of the search network, as in
`test_search`; the mathematics on the smallest real networks.
"""

import dataclasses
import signal

import fake_search
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared_programs import shared_programs
from test_search import records, run, signal_at, untimed

from adarts_jax.config import SearchConfig
from adarts_jax.engine import (
    compilation,
    compilation_cache,
    devices,
    parallel_searches,
    search_problem,
    search_program,
    search_records,
    search_setup,
)
from adarts_jax.engine.epoch import EpochData, redrawn
from adarts_jax.methods import METHODS
from adarts_jax.nn.depthwise import depthwise_conv
from adarts_jax.report import page
from adarts_jax.report.__main__ import report
from adarts_jax.search import main
from adarts_jax.space.genotype import Genotype

SEEDS = (5, 6)
SEVERAL = ("--seed", "5", "--num-searches", "2")


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Let all runs share compiled programs, however small."""
    with shared_programs(tmp_path_factory):
        yield


@pytest.fixture
def fake(monkeypatch):
    """Search on the fake without pictures, looking at the signals after each step."""
    fake_search.install_quick(monkeypatch)
    return monkeypatch


def of_seed(place, seed):
    return place / "searches" / f"seed_{seed}"


def files_of(place):
    """Return what must not depend on how a run of several was cut into pieces."""
    found = {}
    for path in sorted(place.rglob("*.json*")):
        name = path.relative_to(place).as_posix()
        if "checkpoints" not in name and name not in ("manifest.json", "metrics.jsonl"):
            found[name] = path.read_text()
    return found, untimed(place)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Return a run of two searches that never stopped."""
    place = tmp_path_factory.mktemp("several") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_search.install(monkeypatch)
        monkeypatch.setattr(page, "report_run", lambda place, result: None)
        assert run(place, *SEVERAL) == 0
    return place


def test_every_search_is_the_one_its_seed_gives_alone(fake, several, tmp_path):
    for seed in SEEDS:
        alone, beside = tmp_path / str(seed), of_seed(several, seed)
        assert run(alone, "--seed", str(seed)) == 0
        for name in ("config.json", "splits.json"):
            assert (beside / name).read_text() == (alone / name).read_text()
        genotypes = [
            "genotype.json",
            *(f"genotypes/epoch_00{n}.json" for n in range(4)),
        ]
        for name in genotypes:
            assert Genotype.load(beside / name) == Genotype.load(alone / name)
        mine, other = (np.load(place / "architecture.npz") for place in (beside, alone))
        for name in set(other) - {"primitives"}:
            np.testing.assert_allclose(mine[name], other[name], atol=1e-6)
        for mine, other in zip(records(beside), untimed(alone), strict=True):
            assert list(mine) == list(other)
            for name, value in other.items():
                if value is None:
                    assert mine[name] is None
                else:
                    assert mine[name] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_the_top_has_means_and_the_genotypes_of_the_best(several):
    found = [records(of_seed(several, seed)) for seed in SEEDS]
    for number, mean in enumerate(records(several)):
        each = [record[number]["weight/loss"] for record in found]
        assert mean["weight/loss"] == pytest.approx(np.mean(each))
        assert len(set(each)) == 2
    scores = [record[-1]["architecture/accuracy"] for record in found]
    best = of_seed(several, SEEDS[int(np.argmax(scores))])
    for name in ("genotype.json", "genotypes/epoch_003.json"):
        assert (several / name).read_text() == (best / name).read_text()
    assert (several / "architecture.npz").is_file()
    assert not (several / "splits.json").exists()


def test_a_search_is_reported_on_like_a_run(several):
    place = of_seed(several, 6)
    report([str(place)])
    assert "Finished; 4 epochs recorded." in (place / "report.html").read_text()
    assert (place / "cells" / "normal.svg").is_file()


@pytest.mark.parametrize("step", [4, 12, 23])
def test_stopped_and_resumed_is_the_same(fake, several, tmp_path, step):
    place = tmp_path / "run"
    with fake.context() as patch:
        signal_at(patch, step, signal.SIGTERM)
        assert run(place, *SEVERAL) == 143
    assert not (place / "genotype.json").exists()
    assert main(["--out", str(place), "--resume"]) == 0
    assert files_of(place) == files_of(several)


def test_killed_between_the_records_of_the_searches_and_that_of_the_run(
    fake, several, tmp_path
):
    place = tmp_path / "run"
    with fake.context() as patch:
        signal_at(patch, 13, signal.SIGTERM)
        assert run(place, *SEVERAL) == 143
    file = place / "metrics.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:1]))
    for step in (13, 12):
        (place / "checkpoints" / str(step)).rename(tmp_path / str(step))
    (tmp_path / "12").rename(place / "checkpoints" / "12")
    assert run(place, *SEVERAL, "--resume") == 0
    assert files_of(place) == files_of(several)


def test_a_loop_on_the_device_gives_the_same(fake, several, tmp_path):
    fake.setattr(devices, "loops_on_the_host", lambda: False)
    assert run(tmp_path / "run", *SEVERAL) == 0
    for mine, other in zip(untimed(tmp_path / "run"), untimed(several), strict=True):
        for name, value in other.items():
            assert mine[name] == (value and pytest.approx(value, rel=1e-4, abs=1e-6))


def test_resuming_with_another_number_is_an_error(fake, tmp_path, capsys):
    place = tmp_path / "run"
    with fake.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        run(place, *SEVERAL)
    capsys.readouterr()
    assert run(place, "--seed", "5", "--num-searches", "3", "--resume") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "num_searches: 2 -> 3" in err


def test_a_loss_that_is_not_finite_names_the_seed(fake, tmp_path, capsys):
    def spoil(network, arch, optimizers, *, image_shape, key):
        state = fake_search.init_state(
            network, arch, optimizers, image_shape=image_shape, key=key
        )
        marked = jax.random.fold_in(jax.random.key(6), 2)
        is_marked = (jax.random.key_data(key) == jax.random.key_data(marked)).all()
        params = jax.tree.map(lambda x: jnp.where(is_marked, jnp.inf, x), state.params)
        return fake_search.FakeState(state.step, params, state.arch)

    fake.setattr(search_program, "init_state", spoil)
    assert run(tmp_path / "run", *SEVERAL) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        "error: the loss or its gradient is not finite at step 0 in the search with "
        "seed 6 (epoch 0); "
    )


def test_a_rollback_gives_every_search_other_numbers():
    config = SearchConfig(seed=5, num_searches=2)
    several = EpochData(None, None, None, parallel_searches.root_key(config))
    for place, seed in enumerate(SEEDS):
        single = EpochData(None, None, None, jax.random.key(seed))
        assert (redrawn(several, 2).key[place] == redrawn(single, 2).key).all()
        assert redrawn(several, 0).key is several.key


def test_too_little_memory_counts_the_searches():
    advice = search_setup.memory_advice(SearchConfig(num_searches=4))
    assert advice.startswith("make num_searches (now 4), batch_size (now 32) or ")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": 2**32 - 2, "num_searches": 3}, "num_searches = 3 takes seeds up to"),
        ({"method": "random", "num_searches": 2}, "options.weight_sharing"),
        ({"num_searches": 65}, "num_searches"),
    ],
)
def test_searches_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        SearchConfig.model_validate(values)


def first_steps(config, place, steps=3):
    """Return architecture, weights and genotype of every search after a few steps."""
    start = search_setup.prepare(config, place, resume=False, overwrite=False)
    problem = search_problem.make_problem(config, start)
    key = parallel_searches.root_key(config)
    seeds = None if problem.seed is None else parallel_searches.own_seeds(config)
    data = search_program.put_data(start, key, seeds)
    init = compilation.compile_quickly(search_program.make_init(problem), key)
    training = init.call(key)
    program = search_program.compile_search(problem, training, data)
    pace = search_setup.epoch_pace(config, config.epochs - 1)
    state = program.advance(data, 0, pace)(training, steps).state
    found = parallel_searches.split(
        (state.arch, state.params, state.batch_stats), problem.num_searches
    )
    return [
        (search_records.current_genotype(one[0], problem.method), one) for one in found
    ]


def test_depthwise_gradients_side_by_side_cost_what_they_cost_alone():
    """Together they could become a dense convolution of all channels."""

    def gradient(x, kernel):
        def total(kernel):
            return (depthwise_conv(x[None], (kernel,)) ** 2).sum()

        return jax.grad(total)(kernel)

    x = jax.random.normal(jax.random.key(0), (3, 2, 6, 6, 16))
    kernels = jax.random.normal(jax.random.key(1), (3, 3, 3, 16))
    alone = [gradient(*one) for one in zip(x, kernels, strict=True)]
    np.testing.assert_allclose(jax.vmap(gradient)(x, kernels), alone, rtol=1e-5)

    def work(function, *arrays):
        analysis = jax.jit(function).lower(*arrays).compile().cost_analysis()
        assert analysis is not None
        return analysis["flops"]

    once = work(gradient, x[0], kernels[0])
    assert work(jax.vmap(gradient), x, kernels) < 4 * once  # not nine times


CASES = {
    "alpha_adarts": {"network": {"init_channels": 4}},
    "pc_darts": {"options": {"channel_choice": "random"}},
    "darts": {"network": {"init_channels": 4}},
    "second_order": {
        "method": "pc_darts",
        "architecture": {"order": "second", "hessian": "exact"},
    },
    "random": {"options": {"weight_sharing": True}},
    "adarts": {},
    "g_pc_darts_a": {"network": {"init_channels": 16}},
    "att_darts_p": {"network": {"init_channels": 4}},
}
FEW = ("none", "skip_connect", "max_pool_3x3", "sep_conv_5x5")


@pytest.mark.parametrize(
    ("name", "primitives"),
    [
        ("alpha_adarts", FEW),
        *(pytest.param(name, None, marks=pytest.mark.slow) for name in CASES),
    ],
)
def test_real_networks_side_by_side(name, primitives, tmp_path, monkeypatch):
    """Two searches in one program and alone: equal to rounding."""
    if primitives is not None:
        method = dataclasses.replace(METHODS[name], primitives=primitives)
        monkeypatch.setattr(search_problem, "METHODS", {name: method})
    monkeypatch.setattr(compilation, "_FOR_MANY_CALLS", compilation._FOR_ONE_CALL)
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    compilation_cache.use_compilation_cache(str(cache))
    case = {"method": name, "network": {}} | CASES[name]
    case["network"] = {"num_cells": 1} | case["network"]
    case |= {"batch_size": 8, "data": {"num_examples": 48}}
    config = SearchConfig.model_validate({"seed": 3, "num_searches": 2} | case)
    beside = first_steps(config, tmp_path / "none")
    for seed, (genotype, arrays) in zip((3, 4), beside, strict=True):
        single = SearchConfig.model_validate({"seed": seed} | case)
        [(expected, alone)] = first_steps(single, tmp_path / "none")
        assert genotype == expected
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-5),
            arrays,
            jax.device_get(alone),
        )
    first, second = (jax.tree.leaves(arrays[1]) for _, arrays in beside)
    assert any(not np.allclose(x, y) for x, y in zip(first, second, strict=True))
