"""Write a ``.pt`` file that the original PyTorch programs load."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from adarts_jax.torch_weights.reader import import_torch

_STATISTIC = "running_var"  # the last entry of a batch norm but for the counter


def write_state_dict(
    path: Path, tensors: Mapping[str, np.ndarray], *, num_batches_tracked: int = 0
) -> None:
    """Write tensors as ``torch.save(network.state_dict(), path)`` does.

    Args:
      path: the file, replaced if it exists.
      tensors: float32 arrays by PyTorch name, in the order of the network.
      num_batches_tracked: the counter of every batch norm, which nothing reads but
        ``load_state_dict(strict=True)`` expects.

    Raises:
      UserError: PyTorch is missing or too old.
    """
    torch = import_torch()
    entries = OrderedDict()
    for name, array in tensors.items():
        entries[name] = torch.from_numpy(np.array(array))
        norm, _, last = name.rpartition(".")
        if last == _STATISTIC:
            counter = torch.tensor(num_batches_tracked, dtype=torch.int64)
            entries[f"{norm}.num_batches_tracked"] = counter
    torch.save(entries, path)
