"""``python -m adarts_jax.report``: the page, what it must not contain, bad input."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from adarts_jax.cli import run_program
from adarts_jax.errors import UserError
from adarts_jax.report.__main__ import report
from adarts_jax.report.page import flatten, inline_svg
from adarts_jax.report.pictures import draw_run
from adarts_jax.report.run_files import read_run
from adarts_jax.space.operations import ALPHA_ADARTS_PRIMITIVES
from adarts_jax.space.published import PUBLISHED

HOSTILE = "<script>alert('x')</script>&\"</td>"
VOID = {"meta", "img", "br", "link"}


@pytest.fixture
def run(tmp_path):
    """A finished run with hostile names wherever a user or a data set has a say."""
    directory = tmp_path / "run <i>1"
    directory.mkdir()
    PUBLISHED["alpha_adarts"].save(directory / "genotype.json")
    config = {"warmup_epochs": 1, "data": {"data_dir": HOSTILE, "seeds": [1, 2]}}
    manifest = {"classes": [HOSTILE, "cat"], HOSTILE: 1}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "manifest.json").write_text(json.dumps(manifest))
    lines = [{"epoch": e, "weight/loss": 0.5 - e / 8, HOSTILE: e} for e in range(3)]
    (directory / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return directory


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are balanced."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], set(), [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_writes_one_page_with_everything(run, capsys):
    assert run_program(report, [str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    text = (run / "report.html").read_text("utf-8")
    page = Page(text)
    assert {"svg", "table", "pre"} <= page.tags
    words = "\n".join(page.words)
    assert "Genotype(normal=[('sep_conv_5x5', 0)" in words
    assert "3,285,838 parameters" in words
    assert "Finished; 3 epochs recorded." in words
    assert {"data.seeds", "[1, 2]", "weight/loss", "0.25"} <= set(page.words)
    for name in ("cells/normal", "cells/reduction", "learning_curves"):
        assert (run / f"{name}.svg").is_file()
        assert (run / f"{name}.png").is_file()


def test_page_refers_to_nothing_outside_itself(run):
    run_program(report, [str(run)])
    text = (run / "report.html").read_text("utf-8")
    page = Page(text)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "image"}
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in {"src", "href", "xlink:href"}:
            assert value.startswith("#")
        elif not name.startswith("xmlns"):
            assert "://" not in (value or "")
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []


def test_hostile_names_are_text(run):
    run_program(report, [str(run)])
    text = (run / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.words.count(HOSTILE) == 3  # a value, and names in two tables
    assert any("<script>" in word and '"cat"' in word for word in page.words)
    assert "<script" not in text
    assert "run <i>1" in page.words
    assert "i" not in page.tags


def test_element_names_are_unique_within_a_picture_page(run):
    run_program(report, [str(run)])
    names = [
        v for n, v in Page((run / "report.html").read_text()).attributes if n == "id"
    ]
    assert [name for name in names if re.search(r"_\d+$", name)] == []


@pytest.mark.parametrize(
    "line",
    [
        '{"epoch": 1' + "0" * 400 + ', "weight/loss": 1}',
        '{"epoch": -1000000000000000000, "weight/loss": 1}',
        '{"epoch": 4, "weight/loss": 1' + "0" * 400 + "}",
        '{"epoch": 4, "weight/loss": 1e308, "weight/accuracy": -1e308}',
        '{"epoch": 4, "weight/loss": "x", "weight/accuracy": [1]}',
    ],
    ids=["huge epoch", "negative epoch", "huge integer", "huge number", "other kinds"],
)
def test_values_that_no_axis_can_show_are_left_out(run, line):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f"\n{line}\n")
    config = {"warmup_epochs": 10**400, "method": "\ud800"}
    (run / "config.json").write_text(json.dumps(config))
    assert run_program(report, [str(run)]) == 0
    Page((run / "report.html").read_text("utf-8"))


def test_unfinished_run_shows_the_newest_genotype(run):
    folder = run / "genotypes"
    folder.mkdir()
    (run / "genotype.json").rename(folder / "epoch_001.json")
    PUBLISHED["darts_v2"].save(folder / "epoch_002.json")
    run_program(report, [str(run)])
    words = "".join(Page((run / "report.html").read_text("utf-8")).words)
    assert "Not finished" in words
    assert "genotypes/epoch_002.json" in words
    assert "dil_conv_3x3" in words


def test_run_that_has_only_begun(run):
    for name in ("genotype.json", "metrics.jsonl", "manifest.json"):
        (run / name).unlink()
    assert run_program(report, [str(run)]) == 0
    assert not (run / "cells").exists()
    assert "no genotype yet" in (run / "report.html").read_text("utf-8")


def test_weights_come_from_the_caller_or_from_the_run(run):
    weights = {"op_weights_normal": np.full((14, 10), 0.1)}
    drawn = draw_run(run, weights=weights, primitives=ALPHA_ADARTS_PRIMITIVES)
    assert run / "cells" / "normal_weights" in [picture.stem for picture in drawn]
    assert (run / "cells" / "normal_weights.png").is_file()
    names = np.array(ALPHA_ADARTS_PRIMITIVES)
    np.savez(
        run / "architecture.npz",
        primitives=names,
        op_weights_reduce=weights["op_weights_normal"],
    )
    drawn = draw_run(run)
    assert [p.stem.name for p in drawn if "weights" in p.title] == ["reduction_weights"]


def test_pickled_weights_are_refused(run):
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(run / "architecture.npz", primitives=objects, allow_pickle=True)
    with pytest.raises(UserError, match="not a file of plain arrays"):
        draw_run(run)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda run: (run / "config.json").unlink(), "not a run directory"),
        (lambda run: (run / "config.json").write_text("{"), "not valid JSON"),
        (lambda run: (run / "config.json").write_text("[]"), "not hold a JSON object"),
        (lambda run: (run / "genotype.json").write_text("{}"), "not a genotype"),
        (lambda run: (run / "architecture.npz").write_text("x"), "plain arrays"),
    ],
)
def test_damaged_runs_are_one_line(run, damage, complaint, capsys):
    damage(run)
    assert run_program(report, [str(run)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert complaint in error
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["/no/such/run"], "is not a directory"),
        ([], "RUN_DIR"),
        (["a", "b"], "unrecognized arguments: b"),
        (["--wrong", "a"], "--wrong"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, complaint, capsys):
    assert run_program(report, arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert complaint in error


def test_flatten_keeps_empty_groups_and_none():
    assert flatten({"a": {}, "b": {"c": None}}) == {"a": "{}", "b.c": "null"}


def test_inline_svg_keeps_names_that_are_referred_to():
    svg = '<?xml?><!DOCTYPE x "http://d"><svg><g id="axes_1"/><path id="m1f"/></svg>'
    assert inline_svg(svg) == '<svg><g/><path id="m1f"/></svg>'


def test_read_run_tells_the_warm_up(run):
    assert read_run(run).warmup_epochs == 1
