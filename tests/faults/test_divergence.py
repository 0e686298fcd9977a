"""A loss or gradient that is not finite: stop, or go back and try another way."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from fault_tools import newest, records, run, same, signal_at, untimed, when

from adarts_jax.bilevel import steps
from adarts_jax.bilevel.gradients import Gradients
from adarts_jax.engine import retrain_loop, search_loop
from adarts_jax.report.page import report_run
from adarts_jax.training import retrain_step

LOOPS = {"fake": search_loop, "retrain": retrain_loop}
ROLLBACK = ["--on-nan", "rollback"]
# Step whose weights are spoiled, after so many rollbacks: three in the second epoch.
SPOILED = {0: 5, 1: 6, 2: 7}


def spoil(monkeypatch, kind, spoiled):
    """Let the weights become not-a-number before certain steps."""
    make_work = LOOPS[kind].make_work

    def make_spoiled(*arguments):
        work = make_work(*arguments)

        def begin(number, rollbacks):
            advance = work.begin(number, rollbacks)

            def advance_spoiled(training, times):
                assert times == 1
                with jax.transfer_guard("allow"):
                    if int(training.state.step) == spoiled.get(rollbacks):
                        training = with_nan(training)
                return advance(training, times)

            return advance_spoiled

        return dataclasses.replace(work, begin=begin)

    monkeypatch.setattr(LOOPS[kind], "make_work", make_spoiled)


def with_nan(training):
    def nan(leaf):
        return leaf * jnp.nan if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return dataclasses.replace(training, state=jax.tree.map(nan, training.state))


@pytest.mark.parametrize("kind", LOOPS)
def test_a_run_goes_back_and_finishes(quick, wholes, tmp_path, capsys, kind):
    place, clean = tmp_path / "run", untimed(wholes(kind))
    spoil(quick, kind, SPOILED)
    assert run(kind, place, *ROLLBACK) == 0
    told = [s for s in capsys.readouterr().err.splitlines() if "rollback" in s]
    assert [line.partition(", with")[0] for line in told] == [
        f"the loss or its gradient is not finite at step {step} (epoch 1): rollback "
        f"{count + 1} of at most 3, to step 4"
        for count, step in SPOILED.items()
    ]
    found = untimed(place)
    assert found[0] == clean[0]
    assert [record.get("rollbacks") for record in found] == [None, 3, 3]
    loss = "train/loss" if kind == "retrain" else "weight/loss"
    assert found[1][loss] != clean[1][loss]  # another order
    assert found[1][loss] < 1.1 * clean[0][loss]
    quick.undo()
    assert "rollbacks" in report_run(place).read_text()


@pytest.mark.parametrize("kind", LOOPS)
def test_resumed_after_a_rollback_it_is_the_same(quick, tmp_path, kind):
    """Stopped after the second one, in the middle of an epoch; crashed, and resumed."""
    spoil(quick, kind, SPOILED)
    whole, place = tmp_path / "whole", tmp_path / "run"
    assert run(kind, whole, *ROLLBACK) == 0

    seen = []
    with quick.context() as patch:
        # step 6 is reached by the second and by the third try
        when(patch, 6, lambda: seen.append(6))
        when(patch, 5, lambda: len(seen) == 1 and crash())
        with pytest.raises(ZeroDivisionError):
            run(kind, place, *ROLLBACK)
    assert newest(place).name == "4"
    assert [record["epoch"] for record in records(place)] == [0]

    with quick.context() as patch:
        signal_at(patch, 7)  # only the last try gets there
        assert run(kind, place, "--resume", *ROLLBACK) == 143
    assert newest(place).name == "7"
    assert run(kind, place, "--resume") == 0
    assert same(place, whole)


def crash():
    raise ZeroDivisionError


def test_the_beginning_of_the_epoch_is_what_it_goes_back_to(quick, tmp_path):
    """Also if a signal has left a newer state, which another run does not have."""
    kind = "retrain"
    spoil(quick, kind, {0: 7})
    whole, place = tmp_path / "whole", tmp_path / "run"
    assert run(kind, whole, *ROLLBACK) == 0
    with quick.context() as patch:
        signal_at(patch, 6)
        assert run(kind, place, *ROLLBACK) == 143
    assert run(kind, place, "--resume") == 0
    assert same(place, whole)


@pytest.mark.parametrize("kind", LOOPS)
def test_three_times_at_most(quick, tmp_path, capsys, kind):
    """A learning rate that is far too large; nothing is spoiled by hand."""
    place = tmp_path / "run"
    argv = ["--weights.learning-rate", "1e38", "--weights.gradient-clip", "none"]
    assert run(kind, place, *argv, *ROLLBACK) == 1
    err = capsys.readouterr().err
    assert err.count("to step 0") == 3
    line = err.splitlines()[-1]
    assert line.startswith("error: the loss or its gradient is not finite at step ")
    assert ", after 3 rollbacks; the checkpoint of step 0 is kept in " in line
    assert "a smaller weights.learning_rate (now 1e+38)" in line
    assert records(place) == []


def test_a_stopped_run_may_be_allowed_to_go_back(quick, tmp_path, capsys):
    kind = "fake"
    spoil(quick, kind, {0: 6})
    place = tmp_path / "run"
    assert run(kind, place) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "the checkpoint of step 4 is kept" in line
    assert f"--resume --on-nan rollback --out {place}" in line
    assert newest(place).name == "4"
    assert run(kind, place, "--resume") == 1
    assert run(kind, place, "--resume", *ROLLBACK) == 0
    assert [record.get("rollbacks") for record in records(place)] == [None, 1, 1]


def test_a_gradient_that_is_not_finite_is_noticed_though_the_loss_is(
    quick, tmp_path, capsys
):
    heads_loss = retrain_step.heads_loss

    def with_a_kink(logits, *arguments):
        # 0, but its derivative is 0 / 0
        return heads_loss(logits, *arguments) + jnp.sqrt(0 * logits.sum())

    quick.setattr(retrain_step, "heads_loss", with_a_kink)
    # A program that an earlier run kept does not know of the change.
    quick.setenv("ADARTS_CACHE", "off")
    assert run("retrain", tmp_path / "run") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "the loss or its gradient is not finite at step 0 (epoch 0)" in line


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf, 1e30])
def test_both_levels_of_a_search_measure_their_gradient(bad):
    """A norm that overflows counts, too: nothing can be clipped by it."""
    good, gradient = {"w": jnp.ones(3)}, {"w": jnp.array([0.0, bad, 1.0])}
    found = Gradients(
        **{field: jnp.float32(1) for field in Gradients._fields}
    )._replace(params=gradient, arch=gradient)
    for used in (found.params, found.arch):
        assert not jnp.isfinite(steps.phase_values(found, used)).all()
    assert jnp.isfinite(steps.phase_values(found, good)).all()
