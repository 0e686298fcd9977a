"""Checkpoints: what is restored is what was saved, or the user hears why not."""

import json
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adarts_jax.engine.checkpoints import Checkpoints
from adarts_jax.errors import UserError


def make_tree(value, width=3):
    params = {"a": jnp.full((2, width), value, jnp.float32), "b": jnp.float32(value)}
    return {
        "step": jnp.int32(value),
        "params": params,
        "optimizer": optax.adam(1e-3).init(params),
        "half": jnp.full((width,), value, jnp.bfloat16),
        "flag": jnp.array([True, False]),
        "nothing": None,
    }


def template(tree):
    return jax.eval_shape(lambda: tree)


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    return True


@pytest.fixture
def saved(tmp_path):
    """Return a directory with the checkpoints of steps 1, 2 and 3."""
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_tree(step))
    return tmp_path / "checkpoints"


def restore(directory, tree):
    with Checkpoints(directory) as checkpoints:
        return checkpoints.restore(template(tree))


def payload(directory, step) -> list[Path]:
    """Return the files with the numbers of a checkpoint."""
    found = [p for p in (directory / str(step) / "state").rglob("d/*") if p.is_file()]
    assert found
    return found


def test_round_trip_keeps_types_values_and_structure(saved):
    step, tree = restore(saved, make_tree(0))
    assert step == 3
    assert same(tree, make_tree(3))
    with pytest.raises(AssertionError):
        same(tree, make_tree(2))


def test_arrays_may_be_given_away_after_save_and_after_restore(tmp_path):
    give_away = jax.jit(
        lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0
    )
    tree = {"a": jnp.arange(100_000.0)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree)
        for _ in range(5):
            tree = give_away(tree)
        checkpoints.wait()
        _, restored = checkpoints.restore(template(tree))
        again = give_away(restored)
        _, restored = checkpoints.restore(template(tree))
    np.testing.assert_array_equal(restored["a"], np.arange(100_000.0))
    np.testing.assert_array_equal(again["a"], np.arange(100_000.0) + 1)


def test_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 5, 9):
            checkpoints.save(step, make_tree(step))
        checkpoints.wait()
        assert checkpoints.steps() == [5, 9]


def test_saving_a_saved_step_changes_nothing(saved):
    with Checkpoints(saved) as checkpoints:
        checkpoints.save(3, make_tree(7))
    assert same(restore(saved, make_tree(0))[1], make_tree(3))


def test_an_earlier_step_is_refused_aloud(saved):
    with Checkpoints(saved) as checkpoints, pytest.raises(RuntimeError, match="step 0"):
        checkpoints.save(0, make_tree(0))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def falsify(path):
    """Change a number where no reader below us would notice."""
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | {"crc32": meta["crc32"] ^ 1}))


DAMAGES = {
    "other numbers": lambda d: falsify(d / "3" / "meta" / "metadata"),
    "flipped": lambda d: [flip(path) for path in payload(d, 3)],
    "cut": lambda d: [
        path.write_bytes(path.read_bytes()[:10]) for path in payload(d, 3)
    ],
    "emptied": lambda d: [path.write_bytes(b"") for path in payload(d, 3)],
    "gone": lambda d: [path.unlink() for path in payload(d, 3)],
    "no meta": lambda d: (d / "3" / "meta" / "metadata").write_text(""),
    "empty folder": lambda d: (d / "4").mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved, damage, caplog):
    DAMAGES[damage](saved)
    bad, good = (4, 3) if damage == "empty folder" else (3, 2)
    with caplog.at_level(logging.WARNING, logger="adarts_jax"):
        with Checkpoints(saved) as checkpoints:
            step, tree = checkpoints.restore(template(make_tree(0)))
            assert step == good
            assert same(tree, make_tree(good))
            # and its step can be saved again
            checkpoints.save(bad, make_tree(11))
        assert same(restore(saved, make_tree(0))[1], make_tree(11))
    assert f"step {bad} is damaged" in caplog.text
    assert f"continuing from step {good}" in caplog.text


def test_nothing_intact_names_the_directory(saved):
    for step in (1, 2, 3):
        for path in payload(saved, step):
            path.write_bytes(b"")
    with pytest.raises(
        UserError, match=r"all 3 checkpoints .*checkpoints'.*--overwrite"
    ):
        restore(saved, make_tree(0))
    # nothing was deleted: a person may want to look
    assert sorted(p.name for p in saved.iterdir()) == ["1", "2", "3"]


def test_nothing_saved_says_so(tmp_path):
    with pytest.raises(UserError, match="nothing was saved yet"):
        restore(tmp_path / "empty", make_tree(0))


def test_another_tree_is_refused_with_a_list(saved):
    other = make_tree(0, width=4)
    other["more"] = other.pop("flag")
    with pytest.raises(UserError) as caught:
        restore(saved, other)
    message = str(caught.value)
    assert "['params']['a']: float32[2,3] -> float32[2,4]" in message
    assert "['flag']: bool[2] -> absent" in message
    assert "and 1 more" in message
    assert "\n" not in message


def test_another_type_is_refused(saved):
    other = make_tree(0)
    other["half"] = other["half"].astype(jnp.float16)
    with pytest.raises(UserError, match=r"bfloat16\[3\] -> float16\[3\]"):
        restore(saved, other)


def test_another_format_is_refused(saved, monkeypatch):
    monkeypatch.setattr("adarts_jax.engine.checkpoints.FORMAT", "adarts-checkpoint/9")
    with pytest.raises(UserError, match=r"format 'adarts-checkpoint/1'.*/9"):
        restore(saved, make_tree(0))
