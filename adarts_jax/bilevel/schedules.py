"""Learning rates by epoch."""

import math


def cosine_learning_rate(
    epoch: int,
    *,
    base: float,
    minimum: float = 0.0,
    epochs: int,
    shifted: bool = False,
) -> float:
    """Cosine annealing, one value per epoch.

    ``lr(e) = min + (base - min) * (1 + cos(pi * e / T)) / 2`` (methods.md 4.4).

    Args:
      epoch: e, counted from 0.
      base: learning rate of epoch 0.
      minimum: learning rate that epoch T would have.
      epochs: T.
      shifted: use lr(e + 1), as the original scripts do under PyTorch 1.1 and later:
        the base value is never used and the last epoch has exactly ``minimum``.

    >>> round(cosine_learning_rate(50, base=0.025, epochs=600), 6)
    0.024574
    """
    position = epoch + 1 if shifted else epoch
    return minimum + (base - minimum) * (1 + math.cos(math.pi * position / epochs)) / 2
