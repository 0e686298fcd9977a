"""Selection: candidates, ranking, and resuming at the training that was stopped."""

import json
import signal

import pytest

import adarts_jax as aj
from adarts_jax.engine import genotype_selection, retrain_loop
from adarts_jax.engine.outcomes import Interrupted
from adarts_jax.engine.retrain_loop import RetrainResult
from adarts_jax.engine.run_directory import RunDirectory
from train.select import main


def make_genotype(op):
    cell = [(op, 0), ("skip_connect", 1)]
    return aj.Genotype(cell, [2], cell, [2])


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Return a folder of three search runs, one of them unfinished."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    for name, op in (("a", "max_pool_3x3"), ("b", "avg_pool_3x3"), ("c", "")):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        if op:
            make_genotype(op).save(folder / name / "genotype.json")
    return folder


class Trainer:
    """Stands for the training: an accuracy per name and seed, and a diary."""

    def __init__(self, accuracies):
        self.accuracies = accuracies
        self.calls = []
        self.stop_at = None

    def retrain(self, config, *, out, resume, overwrite, command):
        self.calls.append((out.name, resume, overwrite))
        assert config.data.test_split is None
        if self.stop_at == out.name:
            (out / "checkpoints" / "5").mkdir(parents=True)
            raise Interrupted("saved", signal.SIGTERM)
        out.mkdir(parents=True, exist_ok=True)
        summary = {
            "held_out_accuracy": self.accuracies[out.name],
            "num_parameters": 1234,
        }
        RunDirectory(out).summary.write_text(json.dumps(summary))
        return RetrainResult(summary, (), out)


@pytest.fixture
def trainer(monkeypatch):
    found = Trainer({"a-seed0": 0.5, "a-seed1": 0.7, "b-seed0": 0.8, "b-seed1": 0.6})
    monkeypatch.setattr(retrain_loop, "retrain", found.retrain)
    return found


def test_the_best_mean_wins_and_its_genotype_is_copied(runs, trainer, tmp_path, capsys):
    assert main([str(runs), "--out", "selection"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["winner"] == "b"
    means = [(row["name"], row["mean"], row["spread"]) for row in result["rows"]]
    spread = pytest.approx(0.1 * 2**0.5)
    assert means == [
        ("b", pytest.approx(0.7), spread),
        ("a", pytest.approx(0.6), spread),
    ]
    place = tmp_path / "selection"
    assert aj.Genotype.load(place / "genotype.json") == make_genotype("avg_pool_3x3")
    saved = json.loads((place / "selection.json").read_text())
    assert saved["rows"] == result["rows"]
    table = (place / "table.txt").read_text()
    assert table in err
    head, first, second = table.splitlines()
    assert head.split() == [
        "genotype",
        "parameters",
        "mean",
        "spread",
        "seed",
        "0",
        "seed",
        "1",
    ]
    assert first.split() == ["b", "1,234", "70.00", "14.14", "80.00", "60.00"]
    assert second.split()[0] == "a"


def test_a_selection_resumes_at_the_training_that_was_stopped(
    runs, trainer, tmp_path, capsys
):
    trainer.stop_at = "b-seed0"
    assert main([str(runs), "--out", "selection"]) == 143
    line = capsys.readouterr().err.splitlines()[-1]
    wanted = "interrupted: 2 of 4 trainings are done; continue with --resume"
    assert line.startswith(wanted)
    assert not (tmp_path / "selection" / "genotype.json").exists()
    trainer.stop_at, trainer.calls = None, []
    runs.rename(tmp_path / "moved")  # what was selected from is in the selection
    assert main(["--out", "selection", "--resume"]) == 0
    assert trainer.calls == [("b-seed0", True, False), ("b-seed1", False, False)]
    assert json.loads(capsys.readouterr().out)["winner"] == "b"


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ([], ["no genotype", "folder of search runs"]),
        (["runs/c"], ["'runs/c' holds no finished search"]),
        (["runs/a", "no_such"], ["no published genotype", "'no_such'"]),
        (["runs/a", "--seeds", "1,1"], ["seeds must differ"]),
        (["runs/a", "--data.held-out-fraction", "0"], ["--data.held-out-fraction"]),
        (["runs/a", "--data.test-split", "test"], ["--data.test-split"]),
        (["runs/a", "copies/a"], ["two genotypes are called 'a'"]),
        (["runs", "--out", "new", "--resume"], ["no selection in 'new'"]),
        (["runs", "--out", "runs"], ["'runs' exists"]),
    ],
)
def test_bad_input_is_one_line(runs, trainer, tmp_path, capsys, argv, parts):
    (tmp_path / "copies" / "a").mkdir(parents=True)
    make_genotype("sep_conv_3x3").save(tmp_path / "copies" / "a" / "genotype.json")
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
    assert trainer.calls == []


def test_resuming_another_selection_shows_the_difference(runs, trainer, capsys):
    assert main([str(runs), "--out", "selection"]) == 0
    capsys.readouterr()
    argv = [str(runs), "--out", "selection", "--resume", "--epochs", "11"]
    assert main(argv) == 2
    assert "epochs: 10 -> 11" in capsys.readouterr().err


def test_candidates_are_named_by_what_they_are_and_come_once(runs):
    genotype = make_genotype("max_pool_3x3")
    genotype.save(runs.parent / "mine.json")
    found = genotype_selection.find_candidates(
        ["darts_v2", "mine.json", str(runs), make_genotype("sep_conv_3x3").to_text()]
    )
    assert list(found) == ["darts_v2", "mine", "b", "genotype_4"]
    assert found["mine"] == genotype  # the run "a" has the same


def test_one_seed_has_no_spread():
    summary = {"held_out_accuracy": 0.5, "num_parameters": 1}
    rows = genotype_selection.rank({"x": [summary]})
    assert rows[0].spread is None
    assert " - " in genotype_selection.format_table(rows, [0])


def test_real_trainings_rank_real_accuracies(runs, capsys, monkeypatch):
    monkeypatch.setattr("adarts_jax.report.page.report_run", lambda place, result: None)
    short = [
        *("--network.num-cells", "1", "--network.init-channels", "2", "--epochs", "1"),
        *("--data.num-examples", "64", "--batch-size", "16", "--seeds", "3"),
    ]
    assert main([str(runs / "a"), *short, "--out", "selection"]) == 0
    result = json.loads(capsys.readouterr().out)
    for row in result["rows"]:
        place = runs.parent / "selection" / "trainings" / f"{row['name']}-seed3"
        record = json.loads((place / "metrics.jsonl").read_text())
        assert [record["held_out/accuracy"]] == row["accuracies"]
        assert "test/accuracy" not in record
