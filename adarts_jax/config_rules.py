"""Rules across the fields of a search config, each with a message and a way out.

They raise ``ValueError``, which a config turns into its own error.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from adarts_jax.methods import METHODS
from adarts_jax.space import topology

Divisor = int | tuple[int, ...]


def check_method(
    name: str,
    *,
    initialization: str,
    channel_divisor: Divisor,
    options: Mapping[str, Any],
) -> None:
    """Check that a method has what is asked of it.

    Args:
      name: of the method.
      initialization: of the architecture.
      channel_divisor: K, one or one per cell.
      options: those that are not left to the method.
    """
    method = METHODS[name]
    if initialization not in method.initializations:
        raise ValueError(
            f"architecture.initialization = {initialization} is not available for "
            f"{name}; choose from: {', '.join(method.initializations)}"
        )
    divisors = channel_divisor if isinstance(channel_divisor, tuple) else ()
    if not method.divides_channels and set(divisors or [channel_divisor]) != {1}:
        raise ValueError(
            f"network.channel_divisor = {_shown(channel_divisor)} means nothing to "
            f"{name}, which sends all channels through the operations; leave it out or "
            "make it 1"
        )
    for option in options:
        if option not in method.options:
            owners = [m.name for m in METHODS.values() if option in m.options]
            raise ValueError(
                f"options.{option} means nothing to {name}; leave it out (it belongs "
                f"to {', '.join(owners)})"
            )


def check_source(source: str, name: str | None, data_dir: str | None) -> None:
    """Check that the place of the data is given where one is needed."""
    if source == "tfds" and not name:
        raise ValueError("data.source = tfds needs data.name, such as cifar10")
    if source in ("folder", "npz") and not data_dir:
        raise ValueError(
            f"data.source = {source} needs data.data_dir, the place of the data"
        )


def check_share(fraction: float | None, num_examples: int | None) -> None:
    """Check that only one field says how many images to use."""
    if fraction is not None and num_examples is not None:
        raise ValueError(
            f"data.fraction = {fraction} and data.num_examples = {num_examples} both "
            "say how many images to use; leave one out"
        )


def check_warmup(epochs: int, warmup_epochs: int) -> None:
    """Check that the architecture is trained at all."""
    if warmup_epochs >= epochs:
        raise ValueError(
            f"warmup_epochs = {warmup_epochs} must be smaller than epochs = {epochs}, "
            f"or the architecture is never trained; try warmup_epochs = {epochs // 5}"
        )


def check_searches(
    seed: int, num_searches: int, *, name: str, weight_sharing: bool
) -> None:
    """Check that there are as many seeds and trainings as searches."""
    last = seed + num_searches - 1
    if last >= 2**32:
        raise ValueError(
            f"num_searches = {num_searches} takes seeds up to {last}, but the largest "
            f"is {2**32 - 1}; make seed (now {seed}) or num_searches smaller"
        )
    trains = METHODS[name].trains_architecture or weight_sharing
    if num_searches > 1 and not trains:
        raise ValueError(
            f"num_searches = {num_searches} means nothing to a random search that "
            "trains nothing; leave it out, or add options.weight_sharing = true"
        )


def check_rates(
    epochs: int, *, warmup_epochs: int, lowest: float, highest: float
) -> None:
    """Check that the learning rate of the weights can rise and fall.

    Args:
      epochs: of the run.
      warmup_epochs: in which it rises.
      lowest: rate at the end.
      highest: rate after the warm-up.
    """
    if lowest > highest:
        raise ValueError(
            f"weights.min_learning_rate = {lowest} must not exceed "
            f"weights.learning_rate = {highest}"
        )
    if warmup_epochs >= epochs:
        raise ValueError(
            f"weights.warmup_epochs = {warmup_epochs} must be smaller than epochs = "
            f"{epochs}"
        )


def check_order(
    name: str, order: str, *, hessian: str | None, att_darts: bool, stale_step: bool
) -> None:
    """Check that what belongs to one order is not asked of the other, nor of neither.

    Args:
      name: of the method.
      order: "first" or "second".
      hessian: how the second order multiplies; None for the default.
      att_darts: see ``compat.att_darts``.
      stale_step: see ``compat.stale_step``.
    """
    is_first = order == "first"
    asked = {
        "architecture.order = second": not is_first,
        "compat.att_darts": att_darts,
        "compat.stale_step": stale_step,
    }
    for option, is_asked in asked.items():
        if is_asked and not METHODS[name].trains_architecture:
            raise ValueError(
                f"{option} means nothing to {name}, which follows no gradient of the "
                "architecture; leave it out"
            )
    if is_first and hessian is not None:
        raise ValueError(
            f"architecture.hessian = {hessian} belongs to the second order; leave it "
            "out or add architecture.order = second"
        )
    if not is_first and stale_step:
        raise ValueError(
            "compat.stale_step belongs to the first order, as alpha-ADARTS uses it; "
            "leave it out or make architecture.order = first"
        )
    if att_darts and hessian == "exact":
        raise ValueError(
            "compat.att_darts imitates finite differences; make "
            "architecture.hessian = finite_difference"
        )


def check_channels(
    init_channels: int, num_cells: int, channel_divisor: Divisor
) -> None:
    """Check that every cell can be divided, and that halves exist where needed."""
    if isinstance(channel_divisor, tuple) and len(channel_divisor) != num_cells:
        raise ValueError(
            f"network.channel_divisor = {_shown(channel_divisor)} has "
            f"{len(channel_divisor)} entries but network.num_cells = {num_cells}; "
            "give one per cell, or a single number"
        )

    def problem(channels: int) -> str | None:
        return _channel_problem(channels, num_cells, channel_divisor)

    found = problem(init_channels)
    if found is None:
        return
    below = (c for c in range(init_channels - 1, 0, -1) if not problem(c))
    above = (
        c for c in range(init_channels + 1, init_channels + 2**12) if not problem(c)
    )
    fitting = [str(c) for c in (next(below, None), next(above, None)) if c]
    way_out = f"try {' or '.join(fitting)}" if fitting else "use a smaller divisor"
    raise ValueError(f"network.init_channels = {init_channels} {found}; {way_out}")


def _channel_problem(
    init_channels: int, num_cells: int, channel_divisor: Divisor
) -> str | None:
    """Return what is wrong with a width, None where it fits every cell."""
    places = _cells(init_channels, num_cells, channel_divisor)
    for cell, width, divisor, reduction in places:
        if width % divisor:
            return (
                f"must be divisible by network.channel_divisor = {divisor} in every "
                f"cell (cell {cell} has {width} channels)"
            )
        if reduction and (width // divisor) % 2:
            return (
                f"leaves {width // divisor} channels for the operations of reduction "
                f"cell {cell} (network.channel_divisor = {divisor}), which must be even"
            )
    return None


def _cells(
    init_channels: int, num_cells: int, channel_divisor: Divisor
) -> Iterator[tuple[int, int, int, bool]]:
    """Yield position, channels, divisor and whether it reduces, for every cell."""
    reductions, width = topology.reduction_cells(num_cells), init_channels
    for cell in range(num_cells):
        width *= 2 if cell in reductions else 1
        divisor = channel_divisor
        divisor = divisor[cell] if isinstance(divisor, tuple) else divisor
        yield cell, width, divisor, cell in reductions


def _shown(divisor: Divisor) -> str:
    return ",".join(map(str, divisor)) if isinstance(divisor, tuple) else str(divisor)
