"""Other files of a run that are damaged, missing or left over."""

import pytest
from fault_tools import all_files, empty, records, run, same, signal_at, truncate

from adarts_jax.search import main


@pytest.fixture
def stopped(quick, tmp_path):
    """Return a search that was stopped at step 9, after two whole epochs."""
    with quick.context() as patch:
        signal_at(patch, 9)
        assert run("fake", tmp_path / "run") == 143
    return tmp_path / "run"


def resume(place):
    """Resume as users do, with the config of the run."""
    return main(["--out", str(place), "--resume"])


@pytest.mark.parametrize(
    ("name", "damage", "way_out"),
    [
        ("config.json", truncate, "config.json' is not valid JSON"),
        ("manifest.json", empty, "delete it to continue without the history"),
        ("splits.json", truncate, "delete it, and --resume divides the images"),
    ],
)
def test_a_damaged_file_is_named_with_a_way_out(
    stopped, wholes, capsys, name, damage, way_out
):
    file = stopped / name
    content = file.read_bytes()
    damage(file)
    before = {path: path.read_bytes() for path in all_files(stopped)}
    assert resume(stopped) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert str(file) in line
    assert way_out in line
    assert before == {path: path.read_bytes() for path in all_files(stopped)}
    if "delete" in way_out:
        file.unlink()
    else:
        file.write_bytes(content)
    assert resume(stopped) == 0
    assert same(stopped, wholes("fake"))


def test_a_lost_record_is_told(stopped, capsys):
    """Not by a crash, which cuts a record before its epoch is left."""
    file = stopped / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-20])  # the end of the last of two
    assert resume(stopped) == 0
    assert "WARNING: metrics.jsonl has lost epochs [1]" in capsys.readouterr().err
    assert [record["epoch"] for record in records(stopped)] == [0, 2]


@pytest.mark.parametrize("line", ["{", "[1]", '{"step": 4}', '{"epoch": "one"}'])
def test_a_damaged_record_in_between_is_named(stopped, capsys, line):
    file = stopped / "metrics.jsonl"
    _, *others = file.read_text().splitlines()
    file.write_text("\n".join([line, *others, ""]))
    assert resume(stopped) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{str(file)!r} is damaged (" in error
    assert "delete it to continue without the records so far" in error
    file.unlink()
    assert resume(stopped) == 0
    assert [record["epoch"] for record in records(stopped)] == [2]


def test_what_a_kill_left_half_written_goes_away(stopped, wholes):
    for name in (".config.json.7.tmp", "genotypes/.epoch_001.json.8.tmp"):
        (stopped / name).write_text("{")
    assert resume(stopped) == 0
    assert list(stopped.rglob(".*.tmp")) == []
    assert same(stopped, wholes("fake"))


@pytest.mark.parametrize("kind", ["fake", "retrain"])
def test_a_damaged_result_is_written_again(quick, wholes, tmp_path, kind):
    place = tmp_path / "run"
    assert run(kind, place) == 0
    results = ["genotype.json"]
    results += ["summary.json", "model/model.json"] if kind == "retrain" else []
    for name in results:
        truncate(place / name)
    assert run(kind, place, "--resume") == 0
    assert same(place, wholes(kind))
