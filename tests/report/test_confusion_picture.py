"""The picture of a confusion matrix, whatever the classes are called."""

from xml.etree import ElementTree

import numpy as np

from adarts_jax.report.confusion_picture import draw_confusion

NAMES = [
    "\ud800x",
    "$\\frac{",
    "<b>&amp;",
    "a\nb",
    "\x1b[31m",
    "größe",
    "",
    "x" * 10**5,
]


def test_names_of_all_kinds_are_drawn(tmp_path):
    draw_confusion(np.eye(len(NAMES), dtype=np.int64), NAMES, tmp_path / "confusion")
    text = (tmp_path / "confusion.svg").read_text("utf-8")
    ElementTree.fromstring(text)  # well formed
    assert len(text) < 10**5
    for shown in ("?x", "$\\frac{", "größe", "?[31m"):
        assert shown in text
    assert (tmp_path / "confusion.png").stat().st_size > 1000
