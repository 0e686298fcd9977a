"""Genotypes: validation, the JSON contract, and text of unknown origin."""

import dataclasses
import doctest
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adarts_jax.errors import UserError
from adarts_jax.space import genotype as genotype_module
from adarts_jax.space import operations
from adarts_jax.space.genotype import Entry, Genotype, operation_shares

CELL = [("sep_conv_3x3", 1), ("skip_connect", 0), ("max_pool_5x5", 2), ("none", 0)]
PLAIN = Genotype(CELL, [2, 3], CELL, (3,))
FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")


@st.composite
def cells(draw, attention):
    nodes = draw(st.integers(1, 6))
    entries = [
        Entry(
            draw(st.sampled_from(operations.OPERATIONS)),
            draw(st.integers(0, position // 2 + 1)),
            draw(attention),
        )
        for position in range(2 * nodes)
    ]
    concat = draw(st.permutations(range(2, nodes + 2)))
    return tuple(entries), tuple(concat[: draw(st.integers(1, nodes))])


ATTENTION = st.sampled_from([None, *operations.ATTENTIONS])


@st.composite
def genotypes(draw, attention=ATTENTION):
    return Genotype(*draw(cells(attention)), *draw(cells(attention)))


def pt_darts_text(genotype):
    fields = []
    for cell in ("normal", "reduce"):
        plain = [tuple(e[:2]) for e in genotype.entries(cell)]
        nested = [plain[i : i + 2] for i in range(0, len(plain), 2)]
        fields.append(f"{cell}={nested}, {cell}_concat={list(genotype.concat(cell))}")
    return f"Genotype({', '.join(fields)})"


def att_darts_text(genotype):
    fields = []
    for cell in ("normal", "reduce"):
        entries = [(e.op, e.source, e.attention or "") for e in genotype.entries(cell)]
        concat = list(genotype.concat(cell))
        fields.append(f"{cell}={entries},\n  {cell}_concat={concat}")
    bottlenecks = "normal_bottleneck='', reduce_bottleneck=''"
    return f"Att_DARTS = Genotype({', '.join(fields)}, {bottlenecks})\n"


def test_examples_in_the_documentation():
    for module in (genotype_module, operations):
        result = doctest.testmod(module)
        assert result.attempted
        assert result.failed == 0


# --- the JSON contract ------------------------------------------------------------


def test_json_is_the_contract_of_the_design():
    assert json.loads(PLAIN.to_json()) == {
        "format": "adarts-genotype/1",
        "normal": [list(entry) for entry in CELL],
        "normal_concat": [2, 3],
        "reduce": [list(entry) for entry in CELL],
        "reduce_concat": [3],
    }
    with_attention = Genotype([("none", 0, "SE"), ("none", 1)], [2], CELL, [2])
    assert json.loads(with_attention.to_json())["normal"] == [
        ["none", 0, "SE"],
        ["none", 1],
    ]


@given(genotypes())
def test_json_round_trip(genotype):
    again = Genotype.from_json(genotype.to_json())
    assert again == genotype
    assert hash(again) == hash(genotype)
    assert Genotype.parse(genotype.to_json()) == genotype


def test_genotypes_are_values():
    assert dataclasses.replace(PLAIN, reduce_concat=(2,)) != PLAIN
    assert len({PLAIN, Genotype(tuple(CELL), (2, 3), CELL, [3])}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAIN.normal = ()
    assert (PLAIN.entries("reduce"), PLAIN.concat("reduce")) == (PLAIN.reduce, (3,))
    assert PLAIN.num_nodes("normal") == 2


# --- the text dialects ------------------------------------------------------------


@given(genotypes(attention=st.none()))
def test_darts_and_pt_darts_text(genotype):
    assert Genotype.parse(genotype.to_text()) == genotype
    assert Genotype.parse(pt_darts_text(genotype)) == genotype


@given(genotypes())
def test_att_darts_text(genotype):
    assert Genotype.parse(genotype.to_text()) == genotype
    assert Genotype.parse(att_darts_text(genotype)) == genotype


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(normal=[('none', 0), ('none', 1)], normal_concat=range(2, 3), "
        "reduce=[('none', 0), ('none', 1)], reduce_concat=range(2, 3))",
        '# CIFAR10\nMY = Genotype(\n normal = [("none", 0), ("none", 1),], # cell\n'
        " normal_concat=[2],\n reduce=(('none', 0), ('none', 1)), reduce_concat=(2,),\n"
        ")\n",
        "01/09 11:00:59 PM genotype = Genotype(reduce=[['none', 0], ['none', 1]], "
        "reduce_concat=[2], normal=[[('none', 0), ('none', 1)]], normal_concat=[2])",
    ],
    ids=["DARTS", "as written in a source file", "log line"],
)
def test_other_spellings(text):
    cell = (Entry("none", 0), Entry("none", 1))
    assert Genotype.parse(text) == Genotype(cell, (2,), cell, (2,))


def replaced(old, new):
    """The text of a good genotype with one thing changed."""
    good = PLAIN.to_text()
    assert good.count(old) >= 1
    return good.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Genotype(normal=__import__('os').system('x'))", "found '__import__'"),
        (replaced("1)", "1 if True else 0)"), "found 'if'"),
        (replaced("'sep_conv_3x3'", "open('/etc/passwd')"), "found 'open'"),
        (replaced("[2, 3]", "[x for x in range(2, 4)]"), "found 'x'"),
        (replaced("[2, 3]", "range(2, 10**9)"), "**9)"),
        (replaced("[2, 3]", "range(2, 99999)"), "range of at most"),
        (replaced("[2, 3]", "range(2, 9999999)"), "cannot read '9999999"),
        (replaced("[2, 3]", "range('a')"), "integers in the range"),
        (replaced("[2, 3]", "list(range(2, 6))"), "found 'list'"),
        (replaced("[2, 3]", "lambda: 0"), "found 'lambda'"),
        (replaced("'sep_conv_3x3'", "'sep' + '_conv'"), "+ '_conv'"),
        (replaced("'sep_conv_3x3'", "f'{1}'"), "found 'f'"),
        (replaced("'sep_conv_3x3'", "'sep\\x5fconv'"), "cannot read"),
        (replaced("[2, 3]", "2"), "normal_concat must be a list"),
        (replaced("Genotype", "eval"), "expected Genotype(...), found 'eval'"),
        (PLAIN.to_text() + "; import os", "cannot read '; import os'"),
        (PLAIN.to_text() + PLAIN.to_text(), "nothing after the genotype"),
        (PLAIN.to_text()[:-1], "expected ',', found the end"),
        ("import os", "found 'import'"),
        ("", "found the end"),
        (replaced("normal_concat", "normal_concta"), "did you mean 'normal_concat'?"),
        (replaced("reduce=", "normal="), "every field once"),
        (replaced(", reduce_concat=[3]", ""), "lacks reduce_concat"),
        (replaced("[3])", "[3], reduce_bottleneck='SE')"), "bottleneck is not empty"),
        ("Genotype(recurrent=[('relu', 0)], concat=range(1, 2))", "recurrent cell"),
        (pt_darts_text(PLAIN).replace("[[(", "[[('none', 0), ("), "node 2 has 3"),
        ("[" * 5000, "not a genotype"),
        ("Genotype(normal=" + "[" * 5000, "nested lists"),
        (" " * 70_000, "too large"),
    ],
)
def test_text_that_is_no_genotype(text, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)) as caught:
        Genotype.parse(text)
    assert "\n" not in str(caught.value)


def test_an_error_says_where():
    with pytest.raises(UserError, match="line 3, column 5"):
        Genotype.parse("Genotype(\n normal=[],\n    ?)")


def check(read, text):
    """A reader of foreign text returns a genotype or a one-line UserError."""
    message = "fine"
    try:
        assert isinstance(read(text), Genotype)
    except UserError as error:
        message = str(error)
    assert message.splitlines() == [message]
    assert len(message) < 500


@given(st.text(max_size=200))
def test_any_text(text):
    check(Genotype.parse, text)
    check(Genotype.from_json, text)


TOKENS = re.findall(r"\w+|\W", PLAIN.to_text() + PLAIN.to_json() + "{\x00\u2028-1.5é#")


@settings(max_examples=200)
@given(
    st.sampled_from([PLAIN.to_text(), pt_darts_text(PLAIN), PLAIN.to_json()]),
    st.integers(0, 300),
    st.integers(0, 20),
    st.lists(st.sampled_from(TOKENS), max_size=4).map("".join),
)
def test_damaged_text(text, start, length, patch):
    check(Genotype.parse, text[:start] + patch + text[start + length :])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["none", "SE", "sep_conv_3x3", "", "\n", "x" * 200]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({name: VALUES for name in FIELDS}), VALUES)
def test_any_json_value(fields, other):
    check(Genotype.from_dict, {"format": "adarts-genotype/1", **fields})
    check(Genotype.from_dict, other)


# --- validation -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("normal", [("sep_conv_3x4", 0), ("none", 1)], "did you mean 'sep_conv_3x3'?"),
        ("normal", [("zzz", 0), ("none", 1)], "unknown operation 'zzz'; known: none"),
        ("reduce", [("none", 0), ("none", 1, "CBMA")], "did you mean 'CBAM'?"),
        ("reduce", [("none", 0, ""), ("none", 1)], "reduce[0]: unknown attention ''"),
        ("normal", [("none", 0), ("none", 2)], "normal[1]: source 2 is out of range"),
        ("normal", [("none", 0), ("none", -1)], "node 2 may use the states 0 to 1"),
        ("normal", [("none", 0), ("none", True)], "source True is out of range"),
        ("normal", [("none", 0), ("none", 1.0)], "source 1.0 is out of range"),
        ("normal", [("none", 0)] * 3, "has 3 entries"),
        ("normal", [], "has 0 entries"),
        ("normal", [("none", 0)] * 34, "has 17 nodes; the limit is 16"),
        ("normal", [("none",), ("none", 0)], "normal[0] must be (operation, source)"),
        ("normal", ["none", "none"], "normal[0] must be (operation, source)"),
        ("normal", "none", "must be a list of entries, found 'none'"),
        ("normal_concat", [4], "state 4 is out of range"),
        ("normal_concat", [1], "intermediate nodes are 2 to 3"),
        ("reduce_concat", [2, 2], "names a state twice"),
        ("reduce_concat", [], "must be a list of states"),
        ("reduce_concat", [10**5000], "a very large integer"),
    ],
)
def test_bad_values_are_named(field, value, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        dataclasses.replace(PLAIN, **{field: value})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": "adarts-genotype/2"}, "format is 'adarts-genotype/2'"),
        ({"normal_concta": [2]}, "did you mean 'normal_concat'?"),
        ({"normal": None}, "must be a list of entries"),
    ],
)
def test_json_objects_that_differ(change, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        Genotype.from_dict(PLAIN.to_dict() | change)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"format": "adarts-genotype/1"}', "lacks normal, normal_concat"),
        ('{"epochs": 50, "seed": 2}', "the keys are: 'epochs', 'seed'"),
        ("[1, 2]", "expected a JSON object, found [1, 2]"),
        ('{"format": ', "not valid JSON: line 1, column 12"),
        ("[" * 60_000, "very deep lists"),
        ("9" * 5000, "very long integers"),
        ("1" * 70_000, "too large"),
    ],
)
def test_json_that_is_no_genotype(text, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        Genotype.from_json(text)


# --- files ------------------------------------------------------------------------


def test_save_and_load(tmp_path):
    path = tmp_path / "genotype.json"
    PLAIN.save(path)
    assert Genotype.load(path) == PLAIN
    assert [p.name for p in tmp_path.iterdir()] == ["genotype.json"]
    text = tmp_path / "genotype.txt"
    text.write_text("\ufeff" + PLAIN.to_text(), encoding="utf-8")
    assert Genotype.load(str(text)) == PLAIN


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "looks like an empty file"),
        (b"PK\x03\x04abc", "looks like a zip archive"),
        (b"\x80\x02}q\x00", "looks like a Python pickle"),
        (b"\x89PNG\r\n", "looks like a PNG picture"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{}", "looks like safetensors weights"),
        (b"<!DOCTYPE html>", "looks like an HTML"),
        (b"Genotype(\xff\xfe", "not UTF-8 text"),
        (b"x" * 65_537, "too large"),
        (f"{PLAIN.to_text()} # {'é' * 40_000}".encode(), "too large"),
        (b"import torch\n", "line 1, column 1"),
        (b'{"method": "darts"}', "the keys are: 'method'"),
    ],
)
def test_files_that_are_no_genotype(tmp_path, data, complaint):
    path = tmp_path / "cell.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=re.escape(complaint)) as caught:
        Genotype.load(path)
    assert str(path) in str(caught.value)


def test_paths_that_are_no_file(tmp_path):
    PLAIN.save(tmp_path / "genotype.json")
    cases = {
        tmp_path: f"did you mean {tmp_path / 'genotype.json'}?",
        tmp_path / "genotpye.json": "did you mean 'genotype.json'?",
        tmp_path / "nowhere" / "x.json": "nowhere does not exist",
        tmp_path / ("x" * 300): "cannot read",
        "bad\0name": "cannot read",
    }
    for path, complaint in cases.items():
        with pytest.raises(UserError, match=re.escape(complaint)):
            Genotype.load(path)


# --- shares -----------------------------------------------------------------------


def test_operation_shares():
    assert operation_shares(PLAIN) == {
        "normal/skip": 0.25,
        "normal/pool": 0.25,
        "normal/none": 0.25,
        "reduce/skip": 0.25,
        "reduce/pool": 0.25,
        "reduce/none": 0.25,
    }
    pools = [("avg_pool_3x3", 0), ("max_pool_3x3", 1)]
    shares = operation_shares(Genotype(pools, [2], CELL, [2]))
    assert (shares["normal/pool"], shares["normal/skip"]) == (1.0, 0.0)
