"""Cell pictures: files, text, determinism, and labels that fit their boxes."""

from xml.etree import ElementTree

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from PIL import Image

from adarts_jax.report import cell_picture
from adarts_jax.report.notation import FAMILIES, operation_family
from adarts_jax.space.genotype import Entry
from adarts_jax.space.operations import ATTENTIONS, OPERATIONS
from adarts_jax.space.published import PUBLISHED

ENTRIES = [
    Entry("sep_conv_3x3", 0, "CBAM"),
    Entry("skip_connect", 1, "Identity"),
    Entry("max_pool_5x5", 0, None),
    Entry("dil_conv_5x5", 2, "GE_theta-plus"),
]


def texts(path) -> list[str]:
    """Return the texts of an SVG file, which must be well-formed."""
    root = ElementTree.fromstring(path.read_bytes())
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


SVG = "{http://www.w3.org/2000/svg}"


def test_every_label_is_text_in_the_svg(tmp_path):
    cell_picture.draw_cell(ENTRIES, [2, 3], tmp_path / "deep" / "cell", "A <b> & $x$")
    found = texts(tmp_path / "deep" / "cell.svg")
    for label in ["sep_conv_3x3", "skip_connect", "max_pool_5x5", "dil_conv_5x5"]:
        assert found.count(label) == 1
    assert {"CBAM", "GE_theta-plus", "A <b> & $x$"} <= set(found)
    assert "Identity" not in found
    assert {"cₖ₋₂", "cₖ₋₁", "cₖ", "0", "1"} <= set(found)
    legend = {"convolution", "dilated convolution", "pooling", "skip connection"}
    assert legend | {"attention"} <= set(found)


def test_png_is_a_picture(tmp_path):
    cell_picture.draw_cell(ENTRIES, [2, 3], tmp_path / "cell", "Cell")
    with Image.open(tmp_path / "cell.png") as image:
        assert image.width > image.height > 100
        colours = {
            colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []
        }
    fill = FAMILIES["dilated"].fill
    assert tuple(bytes.fromhex(fill[1:])) in colours


def test_pictures_are_the_same_bytes_twice(tmp_path):
    for folder in ("one", "two"):
        cell_picture.draw_genotype(PUBLISHED["amoebanet"], tmp_path / folder)
    for name in ("normal.svg", "normal.png", "reduction.svg", "reduction.png"):
        first = (tmp_path / "one" / name).read_bytes()
        assert first == (tmp_path / "two" / name).read_bytes()
    normal = (tmp_path / "one" / "normal.svg").read_bytes()
    assert normal != (tmp_path / "one" / "reduction.svg").read_bytes()


def test_pictures_do_not_depend_on_the_users_settings(tmp_path):
    import matplotlib

    cell_picture.draw_cell(ENTRIES, [2, 3], tmp_path / "one", "Cell")
    with matplotlib.rc_context({"font.size": 30, "savefig.facecolor": "red"}):
        cell_picture.draw_cell(ENTRIES, [2, 3], tmp_path / "two", "Cell")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize("cell_type", ["normal", "reduce"])
def test_published_cells_show_all_their_operations(cell_type, tmp_path):
    genotype = PUBLISHED["nasnet"]
    entries, concat = genotype.entries(cell_type), genotype.concat(cell_type)
    cell_picture.draw_cell(entries, concat, tmp_path / "cell", "Cell")
    operations = [text for text in texts(tmp_path / "cell.svg") if text in OPERATIONS]
    assert sorted(operations) == sorted(entry.op for entry in entries)


@pytest.mark.parametrize("attention", ATTENTIONS[1:])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_labels_fit_their_boxes(operation, attention):
    widths = cell_picture._label_widths(Entry(operation, 0, attention))
    font = FontProperties(family="DejaVu Sans")
    for text, width in zip((operation, attention), widths, strict=True):
        drawn = TextPath((0, 0), text, size=10, prop=font).get_extents().width / 72
        assert drawn + 0.1 < width


def test_every_operation_has_a_family():
    assert {operation_family(name) for name in OPERATIONS} < set(FAMILIES)
