"""What passes a comparison with the reference, and what never does."""

import numpy as np
import pytest

from adarts_jax.engine.verification import EVALUATION_OUTPUT, Verification, _compare


@pytest.mark.parametrize(
    ("ours", "theirs", "passes"),
    [
        ([1, 2], [1, 2], True),
        ([0, 0], [0, 0], True),
        ([1, 2.00001], [1, 2], True),
        ([1, 2.1], [1, 2], False),
        ([1, 0], [0, 0], False),
        ([np.nan, 2], [np.nan, 2], False),
        ([1, 2], [1, np.nan], False),
        ([np.inf, 2], [np.inf, 2], False),
    ],
)
def test_only_what_is_close_passes(ours, theirs, passes):
    clean = (np.ones(2), np.ones(2))
    for pairs in ([(ours, theirs), clean], [clean, (ours, theirs)]):
        arrays = [tuple(map(np.asarray, pair)) for pair in pairs]
        with np.errstate(invalid="ignore"):
            outputs = {EVALUATION_OUTPUT: _compare(arrays)}
        assert Verification(outputs, 2, 1.0).passed == passes
