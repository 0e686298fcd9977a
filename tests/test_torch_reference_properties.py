"""Facts about the PyTorch yardstick that need no stored numbers."""

import pytest

torch = pytest.importorskip("torch")

from adarts_jax.torch_reference import derived_network  # noqa: E402
from benchmarks.torch_reference import search_network  # noqa: E402


@pytest.mark.parametrize(
    ("divisors", "count"),
    [
        ([4] * 8, 433_978),
        ([16, 8, 4, 4, 4, 4, 2, 1], 903_034),
        ([1, 2, 4, 4, 4, 4, 8, 16], 416_170),
    ],
)
def test_search_network_has_the_published_size(divisors, count):
    with torch.device("meta"):
        network = search_network.SearchNetwork(16, 8, 10, channel_divisors=divisors)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_ties_go_to_the_lowest_channel():
    edge = search_network.AttendedEdge(channels=16, stride=1, divisor=4)
    assert edge.select(torch.full((2, 16, 1, 1), 0.5)).tolist() == [0, 1, 2, 3]


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    dropped = derived_network.drop_path(torch.ones(4000, 2, 3, 3), 0.3)
    per_sample = dropped.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1))
    assert torch.equal(per_sample[:, 0].unique(), torch.tensor([0.0, 1 / 0.7]))
    assert abs(dropped.mean().item() - 1.0) < 0.03


def test_drop_path_acts_in_train_mode_only_and_spares_skip_connections():
    genotype = derived_network.Genotype(
        normal=[("skip_connect", 0), ("skip_connect", 1)],
        normal_concat=[2],
        reduce=[("max_pool_3x3", 0), ("skip_connect", 1)],
        reduce_concat=[2],
    )
    network = derived_network.CifarNetwork(genotype, 4, 3, 10, auxiliary=False)
    cell, images = network.cells[0], torch.randn(8, 12, 8, 8)
    assert torch.equal(cell(images, images, 0.9), cell(images, images, 0.0))
    network.drop_path_prob = 0.5
    network.eval()
    images = torch.randn(8, 3, 8, 8)
    assert torch.equal(network(images)[0], network(images)[0])
    network.train()
    assert not torch.equal(network(images)[0], network(images)[0])
