"""Every golden fixture has a test file, or a reason why it has none yet."""

import itertools
from fnmatch import fnmatch

import numpy as np
import pytest
from golden import open_golden, read_index

# Which fixture is checked where; each file accounts for the arrays of its fixtures.
CHECKED = {
    "A[1-5]_*": "tests/parity/test_derived_goldens.py",
    "B1_alpha_genotypes": "tests/test_discretize.py",
    "B3_pc_genotypes": "tests/test_discretize.py",
    "B4_darts_genotypes": "tests/test_discretize.py",
    "B5_att_after_every_genotypes": "tests/test_discretize.py",
    "B5_att_no_attention_genotypes": "tests/test_discretize.py",
    "B1_alpha_[!g]*": "tests/parity/test_search_goldens.py",
    "B2_*": "tests/parity/test_search_goldens.py",
    "B3_pc_[!g]*": "tests/parity/test_search_goldens.py",
    "B4_darts_[!g]*": "tests/parity/test_search_goldens.py",
    "B5_att_after_every_[!ag]*": "tests/parity/test_search_goldens.py",
    "B5_att_no_attention_3cells": "tests/parity/test_search_goldens.py",
    "B6_*": "tests/parity/test_search_goldens.py",
    "C[1345]_*_first_order": "tests/parity/test_search_trajectory.py",
    "C[45]_*_second_order": "tests/parity/test_unrolled_trajectory.py",
    "C_lr_series": "tests/parity/test_learning_rates.py",
    "E_misc": "tests/parity/test_operations.py",
    "T1_*": "tests/parity/test_converted_checkpoints.py",
}
NOT_YET = {
    "B5_att_after_every_and_end_3cells": "attention after the cell, not published",
    "B5_att_double_mixed_3cells": "an unpublished setting of Att-DARTS",
    "B5_att_end_3cells": "an unpublished setting of Att-DARTS",
    "B5_att_mixed_with_operation_3cells": "an unpublished setting of Att-DARTS",
    "B5_att_after_every_and_end_genotypes": "attention after the cell, not published",
    "B5_att_double_mixed_genotypes": "an unpublished setting of Att-DARTS",
    "B5_att_end_genotypes": "an unpublished setting of Att-DARTS",
    "B5_att_mixed_with_operation_genotypes": "an unpublished setting of Att-DARTS",
    "D_*": "recurrent networks",
}


def test_every_fixture_has_one_place(shared):
    names = set(read_index(shared / "golden"))
    found = [
        (name, pattern)
        for pattern in (*CHECKED, *NOT_YET)
        for name in names
        if fnmatch(name, pattern)
    ]
    assert {name for name, _ in found} == names
    assert len(found) == len(names), "a fixture has two places"
    assert {pattern for _, pattern in found} == {*CHECKED, *NOT_YET}


@pytest.mark.parametrize("pattern", CHECKED)
def test_the_place_names_its_fixtures(shared, request, pattern):
    text = (request.config.rootpath / CHECKED[pattern]).read_text("utf-8")
    for name in read_index(shared / "golden"):
        if fnmatch(name, pattern):
            assert f'"{name}"' in text


def test_goldens_of_different_methods_differ(shared):
    """No method is another one under a new name."""
    names = {
        "alpha_adarts": "B1_alpha_small",
        "pc_darts": "B3_pc_small",
        "darts": "B4_darts_small",
        "att_darts": "B5_att_after_every_3cells",
        "adarts": "B6_adarts_small",
    }
    found = {}
    for method, name in names.items():
        golden = open_golden(shared, name)
        gradient = golden["arch_grad/alphas_normal"][:, :8].astype(float)
        found[method] = gradient / np.linalg.norm(gradient)
    for first, second in itertools.combinations(found, 2):
        cosine = (found[first] * found[second]).sum()
        assert abs(cosine) < 0.9, (first, second)
    sizes = [sum(map(np.prod, golden_sizes(shared, name))) for name in names.values()]
    assert len(set(sizes)) == len(names)


def golden_sizes(shared, name):
    """Return the shapes of a fixture's tensors."""
    return list(open_golden(shared, name).spec.values())
