import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adarts_jax.data.splits import SearchSplits, search_splits
from adarts_jax.errors import UserError


@given(
    st.integers(2, 300),
    st.floats(0.01, 0.99),
    st.one_of(st.none(), st.integers(0, 2**32 - 1)),
    st.data(),
)
def test_splits_are_disjoint_parts_of_the_training_set(n, fraction, seed, data):
    limit = data.draw(st.one_of(st.none(), st.integers(2, n)))
    used = n if limit is None else limit
    if int(fraction * used) == 0:
        with pytest.raises(UserError, match="each split needs some"):
            search_splits(n, weight_fraction=fraction, seed=seed, limit=limit)
        return
    splits = search_splits(n, weight_fraction=fraction, seed=seed, limit=limit)
    weight = set(splits.weight_indices.tolist())
    architecture = set(splits.architecture_indices.tolist())
    assert not weight & architecture
    assert len(weight) + len(architecture) == used
    assert len(weight) == int(fraction * used)
    assert weight | architecture <= set(range(n))


def test_positional_is_first_part_and_rest():
    splits = search_splits(9, seed=None)
    assert splits.weight_indices.tolist() == [0, 1, 2, 3]
    assert splits.architecture_indices.tolist() == [4, 5, 6, 7, 8]
    cut = search_splits(9, seed=None, limit=4)
    assert cut.weight_indices.tolist() == [0, 1]
    assert cut.architecture_indices.tolist() == [2, 3]


def test_seed_decides():
    first, same, other = (search_splits(1000, seed=s) for s in (2, 2, 3))
    np.testing.assert_array_equal(first.weight_indices, same.weight_indices)
    assert (first.weight_indices != other.weight_indices).any()
    # Both halves reach over the whole training set.
    for indices in (first.weight_indices, first.architecture_indices):
        assert 400 < indices.mean() < 600


def test_draw_is_the_same_on_every_machine():
    splits = search_splits(12, seed=2)
    assert splits.weight_indices.tolist() == [1, 4, 5, 7, 9, 10]


def test_saved_splits_come_back(tmp_path):
    splits = search_splits(50, seed=7, weight_fraction=0.8, limit=30)
    for name in ("a", "b"):
        splits.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    back = SearchSplits.load(tmp_path / "a")
    assert back.num_examples == 50
    for name in ("weight_indices", "architecture_indices"):
        np.testing.assert_array_equal(getattr(back, name), getattr(splits, name))
        assert getattr(back, name).dtype == np.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture_indices": [1, 4]}, "disjoint"),
        ({"weight_indices": [0, 0]}, "disjoint"),
        ({"weight_indices": [0, 50]}, "index 50 is out of range"),
        ({"weight_indices": [0, -1]}, "index -1 is out of range"),
        ({"weight_indices": []}, "each split needs some"),
        ({"weight_indices": [0.5]}, "not a file of search splits"),
        ({"weight_indices": "0"}, "not a file of search splits"),
        ({"weight_indices": [2**40]}, "not a file of search splits"),
        ({"num_examples": None}, "not a file of search splits"),
        ({"format": "other"}, "has format 'other'"),
    ],
)
def test_damaged_file_is_refused(tmp_path, change, message):
    record = {
        "format": "adarts-splits/1",
        "num_examples": 6,
        "weight_indices": [0, 1],
        "architecture_indices": [2, 3],
    }
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(record))
    SearchSplits.load(path)
    path.write_text(json.dumps(record | change))
    with pytest.raises(UserError, match=message) as caught:
        SearchSplits.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", "\ufeff{"])
def test_not_a_splits_file(tmp_path, text):
    path = tmp_path / "splits.json"
    path.write_text(text)
    with pytest.raises(UserError, match="not a file of search splits"):
        SearchSplits.load(path)
    with pytest.raises(UserError, match="not a file of search splits"):
        SearchSplits.load(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight_fraction": 0.0}, "between 0 and 1"),
        ({"weight_fraction": 1.0}, "between 0 and 1"),
        ({"weight_fraction": float("nan")}, "between 0 and 1"),
        ({"limit": 11}, "limit=11 images: choose from 2 to 10"),
        ({"limit": 1}, "limit=1"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed="),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        search_splits(10, **{"seed": 0} | arguments)
