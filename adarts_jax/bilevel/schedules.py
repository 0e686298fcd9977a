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


def exponential_learning_rate(epoch: int, *, base: float, decay: float) -> float:
    """Return ``base * decay ** epoch``, as DARTS trains on ImageNet (methods.md 6.2).

    >>> round(exponential_learning_rate(2, base=0.1, decay=0.97), 6)
    0.09409
    """
    return base * decay**epoch


TAIL_EPOCHS = 5  # of the linear schedule


def linear_learning_rate(epoch: int, *, base: float, epochs: int) -> float:
    """Fall in a line that reaches 0 five epochs before the end, then slower to 0.

    ``base * (T - 5 - e) / (T - 5)`` for ``e < T - 5``, else ``base * (T - e) / (5 (T -
    5))``: the schedule of PC-DARTS on ImageNet (methods.md 6.2). Runs of five epochs
    or fewer have the line alone, to 0 at the end.

    Args:
      epoch: e, counted from 0.
      base: learning rate of epoch 0.
      epochs: T.

    >>> [round(linear_learning_rate(e, base=0.5, epochs=250), 6) for e in (0, 244, 245)]
    [0.5, 0.002041, 0.002041]
    """
    line = epochs - TAIL_EPOCHS
    if line <= 0:
        return base * (epochs - epoch) / epochs
    if epoch < line:
        return base * (line - epoch) / line
    return base * (epochs - epoch) / (TAIL_EPOCHS * line)


def warmup_learning_rate(epoch: int, *, base: float, warmup_epochs: int) -> float:
    """Rise in equal steps: ``base * (epoch + 1) / warmup_epochs``.

    >>> [warmup_learning_rate(e, base=0.5, warmup_epochs=5) for e in (0, 4)]
    [0.1, 0.5]
    """
    return base * (epoch + 1) / warmup_epochs
