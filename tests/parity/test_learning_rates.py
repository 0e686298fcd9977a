"""Learning rates by epoch against the originals and their published logs."""

import numpy as np
import pytest
from golden import Golden

from adarts_jax.bilevel.schedules import cosine_learning_rate

PUBLISHED = "alpha_train_published_cifar10/base0.025_epochs600_Tmax600"

# base, minimum, T, whether the scheduler stepped before the first epoch
SERIES = {
    "alpha_search/base0.025_epochs80_min0": (0.025, 0.0, 80, True),
    "alpha_train/base0.025_epochs600_Tmax601": (0.025, 0.0, 601, False),
    "alpha_train/base0.025_epochs50_Tmax51": (0.025, 0.0, 51, False),
    PUBLISHED: (0.025, 0.0, 600, False),
    "pc_search_torch<1.1/base0.1_epochs50_min0": (0.1, 0.0, 50, False),
    "pc_search_torch>=1.1/base0.1_epochs50_min0": (0.1, 0.0, 50, True),
    "darts_search_torch<1.1/base0.025_epochs50_min0.001": (0.025, 0.001, 50, False),
    "darts_search_torch>=1.1/base0.025_epochs50_min0.001": (0.025, 0.001, 50, True),
    "darts_train_torch<1.1/base0.025_epochs600_min0": (0.025, 0.0, 600, False),
    "darts_train_torch>=1.1/base0.025_epochs600_min0": (0.025, 0.0, 600, True),
    "alpha_published_log_cifar10 (6 decimals)": (0.025, 0.0, 600, False),
    "alpha_published_log_cifar100 (6 decimals)": (0.025, 0.0, 601, False),
}


def rates(name: str, count: int) -> list[float]:
    base, minimum, epochs, shifted = SERIES[name]
    return [
        cosine_learning_rate(
            epoch, base=base, minimum=minimum, epochs=epochs, shifted=shifted
        )
        for epoch in range(count)
    ]


@pytest.mark.parametrize("name", SERIES)
def test_learning_rates_match_the_original(shared, name):
    want = Golden(shared / "golden", "C_lr_series")[name]
    printed = "decimals" in name
    np.testing.assert_allclose(
        rates(name, len(want)), want, rtol=1e-6 if printed else 1e-10, atol=1e-17
    )


def test_every_series_is_checked(shared):
    golden = Golden(shared / "golden", "C_lr_series")
    for name in SERIES:
        assert golden[name].size
    golden.assert_all_read()


def test_one_epoch_off_is_noticed(shared):
    golden = Golden(shared / "golden", "C_lr_series")
    for name in SERIES:
        want = golden[name][1:]
        assert not np.allclose(rates(name, len(want)), want, rtol=1e-6, atol=1e-17)
