"""Metrics files with gaps and cut ends, and the curves drawn from them."""

import json
import math
from xml.etree import ElementTree

import pytest

from adarts_jax.errors import UserError
from adarts_jax.report.learning_curves import draw_learning_curves
from adarts_jax.report.metrics_file import epoch_series, read_metrics

SVG = "{http://www.w3.org/2000/svg}"
RECORDS = [
    {
        "epoch": epoch,
        "weight/loss": 2.0 - 0.1 * epoch,
        "weight/accuracy": 0.1 * epoch,
        "architecture/loss": None if epoch < 2 else 1.5,
        "architecture/entropy_normal": 2.3,
        "weight/gradient_norm": 10.0**-epoch,
        "genotype/normal/skip": 0.25,
        "architecture/normal/none_edges": 0.5,
    }
    for epoch in range(5)
]


def texts(path) -> list[str]:
    root = ElementTree.fromstring(path.read_bytes())
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def write(path, *lines) -> None:
    path.write_text("\n".join(lines), "utf-8")


def test_reads_records_and_leaves_out_a_cut_last_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(record) for record in RECORDS]
    write(path, *lines, "")
    assert read_metrics(path) == RECORDS
    write(path, *lines[:3], lines[3][:20])
    assert read_metrics(path) == RECORDS[:3]
    write(path, "")
    assert read_metrics(path) == []


@pytest.mark.parametrize("line", ['{"epoch": 1', "[1, 2]", ""])
def test_damage_before_the_last_line_is_named(line, tmp_path):
    write(tmp_path / "metrics.jsonl", '{"epoch": 0}', line, '{"epoch": 2}')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_last_line_cut_inside_a_character_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 0}\n{"name": "\xc3')
    assert read_metrics(path) == [{"epoch": 0}]


def test_series_have_gaps_where_values_are_missing():
    epochs, series = epoch_series(
        [
            {"event": "compiled", "seconds": 3},
            {"epoch": 3, "a": 1, "b": None, "name": "x"},
            {"epoch": 1, "a": math.inf},
            {"epoch": 3, "b": 2.5},
        ]
    )
    assert epochs == [1, 3]
    assert set(series) == {"a", "b", "name"}
    assert math.isnan(series["a"][0])
    assert series["a"][1] == 1
    assert series["b"][1] == 2.5
    assert all(math.isnan(value) for value in series["name"])


def test_draws_what_there_is(tmp_path):
    titles = draw_learning_curves(RECORDS, tmp_path / "curves", warmup_epochs=2)
    assert [title.split()[0] for title in titles] == [
        *("Loss", "Accuracy", "Entropy", "Share", "Norm")
    ]
    found = texts(tmp_path / "curves.svg")
    assert set(RECORDS[0]) - {"epoch"} <= set(found)
    assert found.count("warm-up") == 5
    assert {"0.01", "0.001"} <= set(found)
    assert not any("$" in text for text in found)
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_missing_quantities_leave_out_their_panels(tmp_path):
    records = [{"epoch": 0, "weight/loss": 1.0, "weight/accuracy": None}]
    assert draw_learning_curves(records, tmp_path / "curves") == ["Loss (nats)"]
    assert "warm-up" not in texts(tmp_path / "curves.svg")


def test_nothing_is_written_without_quantities(tmp_path):
    assert draw_learning_curves([], tmp_path / "curves") == []
    assert draw_learning_curves([{"epoch": 0, "time": 1}], tmp_path / "curves") == []
    assert list(tmp_path.iterdir()) == []


def test_a_gap_is_not_drawn_over(tmp_path):
    full = [{"epoch": epoch, "weight/loss": 1.0 + epoch % 2} for epoch in range(30)]
    holed = [dict(record) for record in full]
    holed[10]["weight/loss"] = None
    for name, records in (("full", full), ("holed", holed)):
        draw_learning_curves(records, tmp_path / name)
    strokes = [moves(tmp_path / f"{name}.svg") for name in ("full", "holed")]
    assert strokes[1] == strokes[0] + 1


def test_rounding_errors_do_not_look_like_a_course(tmp_path):
    values = [4.787490, 4.787491, 4.787492]
    records = [{"epoch": e, "x/edge_entropy": v} for e, v in enumerate(values)]
    draw_learning_curves(records, tmp_path / "curves")
    found = texts(tmp_path / "curves.svg")
    assert "4.80" in found
    assert not any("e−" in text or "+" in text for text in found)


def moves(path) -> int:
    """Count how often the pen is put down in the picture."""
    root = ElementTree.fromstring(path.read_bytes())
    return sum(element.attrib["d"].count("M") for element in root.iter(f"{SVG}path"))


def test_same_bytes_twice(tmp_path):
    for name in ("one", "two"):
        draw_learning_curves(RECORDS, tmp_path / name, warmup_epochs=2)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
