"""Released genotypes are what the originals say, under every name users know."""

import dataclasses
import doctest
import json
import re

import pytest

from adarts_jax.errors import UserError
from adarts_jax.space import published
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.published import (
    ALIASES,
    PUBLISHED,
    RECORDS,
    find_genotype,
    published_genotype,
    published_record,
)
from adarts_jax.space.recurrent_genotype import (
    PUBLISHED_RECURRENT,
    RecurrentGenotype,
)

# Our name -> a fixture whose network was built from the original's genotype.
FIXTURES = {
    "darts_v1": "A3_darts_DARTS_V1",
    "darts_v2": "A3_darts_DARTS_V2",
    "pc_darts_cifar": "A3_pc_PC_DARTS_cifar",
    "adarts_v1": "A3_alpha_ADARTS_V1",
    "adarts_v2": "A3_alpha_ADARTS_V2",
    "alpha_adarts": "A1_alphaadarts_cifar10_full",
    "alpha_adarts_2": "A3_alpha_genotype2",
    "att_darts": "A5_att_cifar10_full",
    "nasnet": "A3_alpha_NASNet",
    "amoebanet": "A3_alpha_AmoebaNet",
}


@pytest.fixture(scope="module")
def index(shared):
    fixtures = json.loads((shared / "golden" / "index.json").read_text("utf-8"))
    return {fixture["name"]: fixture for fixture in fixtures}


@pytest.mark.parametrize("name", FIXTURES)
def test_genotypes_are_the_originals(index, name):
    original = index[FIXTURES[name]]["genotype"]
    fields = {key: original[key] for key in ("normal", "normal_concat")}
    fields |= {key: original[key] for key in ("reduce", "reduce_concat")}
    assert PUBLISHED[name] == Genotype(**fields)


@pytest.mark.parametrize("name", ["darts_v1", "darts_v2"])
def test_recurrent_genotypes_are_the_originals(index, name):
    original = index[f"D_rnn_{name.upper()}"]["genotype"]
    assert PUBLISHED_RECURRENT[name] == RecurrentGenotype(**original)


def test_every_genotype_of_the_originals_is_read(index):
    """Also the synthetic ones and those of other methods that fit the format."""
    read = 0
    for fixture in index.values():
        original = fixture.get("genotype", {})
        entries = original.get("normal", []) + original.get("reduce", [])
        if not entries or original.get("normal_bottleneck"):
            continue
        fields = {k: v for k, v in original.items() if "bottleneck" not in k}
        genotype = Genotype(**fields)
        assert [list(e) for e in genotype.normal] == [
            [*entry, None][:3] for entry in original["normal"]
        ]
        read += 1
    assert read >= 17


def test_there_are_the_twelve_of_the_specification():
    assert set(PUBLISHED) == {*FIXTURES, "pc_darts_image", "alpha_adarts_unused"}
    assert len(set(PUBLISHED.values())) == 12
    for name, record in RECORDS.items():
        assert record.genotype is PUBLISHED[name]
        assert len(record.citation) > 20


def test_tables_are_read_only():
    for table in (PUBLISHED, RECORDS, ALIASES, PUBLISHED_RECURRENT):
        with pytest.raises(TypeError):
            table["mine"] = None  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("DARTS_V2", "darts_v2"),
        ("DARTS", "darts_v2"),
        ("PC_DARTS_cifar", "pc_darts_cifar"),
        ("PCDARTS", "pc_darts_cifar"),
        ("PC_DARTS_image", "pc_darts_image"),
        ("ADARTS", "adarts_v1"),
        ("alpha-ADARTS", "alpha_adarts"),
        ("genotype1", "alpha_adarts"),
        ("genotype", "alpha_adarts_unused"),
        ("genotype2", "alpha_adarts_2"),
        ("Att_DARTS", "att_darts"),
        ("NASNet", "nasnet"),
        ("AmoebaNet", "amoebanet"),
    ],
)
def test_names_of_the_originals(name, ours):
    assert published_genotype(name) is PUBLISHED[ours]
    assert find_genotype(name) is PUBLISHED[ours]


def test_aliases_lead_somewhere_and_hide_nothing():
    assert set(ALIASES.values()) <= set(RECORDS)
    assert not set(ALIASES) & set(RECORDS)


def test_misspelt_names_get_a_suggestion():
    for look_up in (published_record, published_genotype, find_genotype):
        with pytest.raises(UserError, match="did you mean 'alpha_adarts'"):
            look_up("alpha_adrts")
    with pytest.raises(UserError, match="known: darts_v1, darts_v2"):
        published_genotype("zzzzzz")
    with pytest.raises(UserError, match="there is no such file"):
        find_genotype("zzzzzz")


def test_find_genotype_reads_files(tmp_path, monkeypatch):
    genotype = dataclasses.replace(PUBLISHED["darts_v1"], reduce_concat=(2, 3))
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "mine.json", "darts_v1"):
        genotype.save(tmp_path / name)
    assert find_genotype("mine") == genotype
    assert find_genotype("mine.json") == genotype
    assert find_genotype(tmp_path / "darts_v1") == genotype
    assert find_genotype("./darts_v1") == genotype
    assert find_genotype("darts_v1") == PUBLISHED["darts_v1"]
    with pytest.raises(UserError, match=re.escape("no genotype file other.json")):
        find_genotype("other.json")


def test_examples_in_the_documentation():
    result = doctest.testmod(published)
    assert result.attempted
    assert result.failed == 0


@pytest.mark.parametrize(
    ("entries", "concat", "complaint"),
    [
        ([("relu", 1)], [1], "source 1 is out of range"),
        ([("rleu", 0)], [1], "did you mean 'relu'"),
        ([("none", 0)], [1], "unknown activation 'none'"),
        ([("relu", 0)], [2], "state 2 is out of range"),
        ([("relu", 0)], [0], "state 0 is out of range"),
    ],
)
def test_recurrent_genotypes_are_validated(entries, concat, complaint):
    with pytest.raises(UserError, match=complaint):
        RecurrentGenotype(entries, concat)
