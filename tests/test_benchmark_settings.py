"""The benchmarks measure what the programs run."""

from adarts_jax.config import SearchConfig
from benchmarks import search_step_workers


def test_the_digits_setting_is_a_search_without_any_option():
    setting, config = search_step_workers.SETTINGS["digits"], SearchConfig()
    assert setting.init_channels == config.network.init_channels
    assert setting.num_cells == config.network.num_cells
    assert setting.batch_size == config.batch_size
    assert config.data.source == "digits"
    assert (setting.image_size, setting.image_channels) == (8, 1)
