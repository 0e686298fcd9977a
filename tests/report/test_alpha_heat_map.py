"""Heat maps: names, numbers, the frame, wrong shapes."""

from xml.etree import ElementTree

import numpy as np
import pytest

from adarts_jax.errors import UserError
from adarts_jax.report.alpha_heat_map import draw_alpha_heat_map, edge_names
from adarts_jax.report.figures import INK
from adarts_jax.space.operations import ALPHA_ADARTS_PRIMITIVES as PRIMITIVES

SVG = "{http://www.w3.org/2000/svg}"
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(10), size=5)
EDGES = np.array([0.25, 0.75, 0.5, 0.125, 0.375])


def texts(path) -> list[str]:
    root = ElementTree.fromstring(path.read_bytes())
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def test_edges_are_named_like_the_states():
    assert edge_names(2) == [
        *("cₖ₋₂ → 0", "cₖ₋₁ → 0"),
        *("cₖ₋₂ → 1", "cₖ₋₁ → 1", "0 → 1"),
    ]


def test_shows_names_numbers_and_edge_weights(tmp_path):
    stem = tmp_path / "map"
    draw_alpha_heat_map(WEIGHTS, PRIMITIVES, stem, "Weights", edge_weights=EDGES)
    found = texts(tmp_path / "map.svg")
    assert {*PRIMITIVES, *edge_names(2), "edge weight", "Weights"} <= set(found)
    numbers = [text for text in found if text.startswith(".")]
    shown = [f"{w:.3f}"[1:] for w in [*WEIGHTS.ravel(), *EDGES]]
    assert sorted(numbers) == sorted(shown)
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_edge_column_only_where_there_are_edge_weights(tmp_path):
    draw_alpha_heat_map(WEIGHTS, PRIMITIVES, tmp_path / "map", "Weights")
    assert "edge weight" not in texts(tmp_path / "map.svg")


def test_frames_the_strongest_operation_but_never_none(tmp_path):
    weights = np.full((2, 3), 0.1)
    weights[:, 0] = 0.8  # none
    for strongest, place in ((1, "one"), (2, "two")):
        weights[:, 1:] = 0.05
        weights[:, strongest] = 0.15
        draw_alpha_heat_map(
            weights, ("none", "skip_connect", "sep_conv_3x3"), tmp_path / place, ""
        )
    frames = [frame_places(tmp_path / f"{place}.svg") for place in ("one", "two")]
    assert [len(places) for places in frames] == [2, 2]
    assert min(frames[1]) > max(frames[0])


def frame_places(path) -> list[float]:
    """Return the left ends of the unfilled frames of a heat map."""
    root = ElementTree.fromstring(path.read_bytes())
    return [
        float(element.attrib["d"].split()[1])
        for element in root.iter(f"{SVG}path")
        if f"stroke: {INK}" in element.attrib.get("style", "")
    ]


def test_same_bytes_twice(tmp_path):
    for name in ("one", "two"):
        draw_alpha_heat_map(WEIGHTS, PRIMITIVES, tmp_path / name, "Weights")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_wrong_shapes_are_refused(tmp_path):
    with pytest.raises(UserError, match="10 columns of weights for 9 names"):
        draw_alpha_heat_map(WEIGHTS, PRIMITIVES[1:], tmp_path / "map", "")
    with pytest.raises(UserError, match="for 5 edges"):
        draw_alpha_heat_map(
            WEIGHTS, PRIMITIVES, tmp_path / "map", "", edge_weights=EDGES[1:]
        )
    with pytest.raises(ValueError, match="fits no cell"):
        draw_alpha_heat_map(WEIGHTS[:4], PRIMITIVES, tmp_path / "map", "")
    assert list(tmp_path.iterdir()) == []
