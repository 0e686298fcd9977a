"""Initial states that anyone can rebuild from a seed and the list of keys and shapes.

One fresh generator per tensor, seeded by the tensor's own name, so that neither the
order of the tensors nor the framework matters (recipe of the golden fixtures).
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

_ARCHITECTURE_PREFIXES = ("alphas", "betas", "gammas")


def _generator(seed: int, key: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(f"{seed}/{key}".encode()))


def recipe_tensor(
    seed: int,
    key: str,
    shape: Sequence[int],
    *,
    arch_scale: float = 1.0,
    attention_shift: bool = False,
) -> np.ndarray:
    """Draw the tensor that belongs to one state-dict key.

    Args:
      seed: seed of the fixture.
      key: state-dict key; its last part decides the distribution.
      shape: shape in PyTorch layout.
      arch_scale: standard deviation of architecture parameters.
      attention_shift: whether the first layer of each channel attention gets a
        positive mean, which keeps the attention of alpha-ADARTS away from exact ties.

    Returns:
      float32 array (int64 zero for ``num_batches_tracked``).
    """
    shape, name = tuple(shape), key.rpartition(".")[2]
    random = _generator(seed, key)
    if name == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if name == "running_mean":
        values = 0.1 * random.standard_normal(shape)
    elif name == "running_var":
        values = random.uniform(0.5, 1.5, shape)
    elif name.startswith(_ARCHITECTURE_PREFIXES):
        values = arch_scale * random.standard_normal(shape)
    elif len(shape) >= 2:
        values = random.standard_normal(shape)
        if attention_shift and key.endswith(".ca.fc1.weight"):
            values = 0.3 * (values + 0.5)
        values = values / math.sqrt(math.prod(shape[1:]))
    elif name == "weight":
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = 0.1 * random.standard_normal(shape)
    return np.asarray(values, np.float32)


def recipe_state(
    seed: int, spec: Mapping[str, Sequence[int]], *, attention_shift: bool = False
) -> dict[str, np.ndarray]:
    """Draw a whole state dict.

    Args:
      seed: seed of the fixture.
      spec: shape of every state-dict key.
      attention_shift: see ``recipe_tensor``.
    """
    return {
        key: recipe_tensor(seed, key, shape, attention_shift=attention_shift)
        for key, shape in spec.items()
    }


def projections(seed: int, key: str, array: np.ndarray) -> np.ndarray:
    """Fingerprint an array the way the fixtures store large gradients.

    Args:
      seed: 0 in the published fixtures.
      key: state-dict key of the array.
      array: any shape.

    Returns:
      (3,) float64: sum, L2 norm, dot product with a fixed random vector.
    """
    values = np.asarray(array, np.float64)
    direction = _generator(seed, f"proj/{key}").standard_normal(values.shape)
    return np.array(
        [values.sum(), np.sqrt((values**2).sum()), (values * direction).sum()]
    )
