"""benchmarks.check_regression: flags what became worse, refuses what cannot be told."""

import copy
import json

import pytest

from benchmarks import check_regression

RESULT = {
    "benchmark": "search_step",
    "setting": {"name": "small", "init_channels": 8, "rounds": 7},
    "machine": {"processor": "a processor", "cores": 2},
    "cores_per_worker": None,
    "implementations": {
        "jax": {
            "device": "cpu",
            "compile_seconds": 30.0,
            "init_seconds": 3.0,
            "programs": {
                "step": {"median_seconds": 0.5, "peak_mib": 900.0, "quiet": True}
            },
        }
    },
}


@pytest.fixture
def compare(tmp_path, capsys):
    """Write two results, compare the files, return status and both streams."""

    def run(new, *options, old=RESULT):
        paths = [tmp_path / "old.json", tmp_path / "new.json"]
        for path, result in zip(paths, (old, new), strict=True):
            path.write_text(result if isinstance(result, str) else json.dumps(result))
        status = check_regression.main([*map(str, paths), *options])
        return status, *capsys.readouterr()

    return run


def changed(value, *path):
    result = copy.deepcopy(RESULT)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return result


JAX = ("implementations", "jax")
STEP = (*JAX, "programs", "step")


def test_the_same_result_is_no_regression(compare):
    assert compare(RESULT) == (0, "nothing worse by more than 10 %\n", "")


@pytest.mark.parametrize(
    ("path", "worse"),
    [
        ((*STEP, "median_seconds"), 0.6),
        ((*STEP, "peak_mib"), 1000.0),
        ((*JAX, "compile_seconds"), 34.0),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else str(value),
)
def test_one_number_that_grew_is_one_line(compare, path, worse):
    status, out, _ = compare(changed(worse, *path))
    assert status == 1
    assert len(out.splitlines()) == 1
    assert "jax" in out
    assert path[-1] in out
    assert f"{worse:g}" in out


def test_the_threshold_can_be_chosen(compare):
    new = changed(0.54, *STEP, "median_seconds")  # 8 % more
    assert compare(new)[0] == 0
    assert compare(new, "--threshold", "5")[0] == 1


def test_what_became_better_or_is_not_watched_is_no_regression(compare):
    assert compare(changed(0.1, *STEP, "median_seconds"))[0] == 0
    assert compare(changed(99.0, *JAX, "init_seconds"))[0] == 0


def test_half_a_second_of_compiling_is_noise(compare):
    old = changed(2.0, *JAX, "compile_seconds")
    assert compare(changed(2.9, *JAX, "compile_seconds"), old=old)[0] == 0
    assert compare(changed(3.1, *JAX, "compile_seconds"), old=old)[0] == 1


def test_how_often_was_measured_may_differ(compare):
    assert compare(changed(2, "setting", "rounds"))[0] == 0


def test_a_row_that_is_gone_is_named(compare):
    old = changed(RESULT["implementations"]["jax"], "implementations", "torch")
    status, _, err = compare(RESULT, old=old)
    assert status == 0
    assert "missing in" in err
    assert "torch" in err


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (changed("epoch", "benchmark"), "benchmark: 'search_step' and 'epoch'"),
        (changed(16, "setting", "init_channels"), "setting init_channels: 8 and 16"),
        (changed("full", "setting", "name"), "setting name: 'small' and 'full'"),
        (changed("another", "machine", "processor"), "processor: 'a processor' and"),
        (changed("NVIDIA H200", *JAX, "device"), "device of jax: 'cpu' and"),
        (changed(1, "cores_per_worker"), "cores per worker: None and 1"),
        (changed({}, "implementations"), "no row in common"),
        (changed({"jax": 1}, "implementations"), "a row is not a table"),
        (changed(None, "machine"), "'machine' is missing"),
        ("{", "not valid JSON"),
        ("[]", "'benchmark' is missing"),
    ],
)
def test_what_cannot_be_compared_is_one_line(compare, new, reason):
    status, out, err = compare(new)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert reason in err


def test_a_missing_file_is_one_line(tmp_path, capsys):
    path = str(tmp_path / "none.json")
    assert check_regression.main([path, path]) == 2
    assert capsys.readouterr().err == (
        f"error: cannot read {path!r}: No such file or directory\n"
    )
