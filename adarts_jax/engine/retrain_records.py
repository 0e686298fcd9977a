"""What a training writes down: which epoch counts, lines for people, the summary."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from adarts_jax.engine.console import format_seconds
from adarts_jax.engine.metrics import TIME_PREFIX
from adarts_jax.engine.retrain_setup import Start
from adarts_jax.model_spec import ModelSpec
from adarts_jax.retrain_config import RetrainConfig

Record = Mapping[str, Any]

FORMAT = "adarts-retraining/1"
HELD_OUT, TEST = "held_out/accuracy", "test/accuracy"


def selecting_quantity(config: RetrainConfig) -> str | None:
    """Return what chooses an epoch, None where only the last one counts.

    The held-out accuracy; that of the test only if the user wants it as the result.
    """
    if config.evaluation.headline == "best_on_test":
        return TEST
    return HELD_OUT if config.data.held_out_fraction else None


def best_record(records: Sequence[Record], quantity: str) -> Record | None:
    """Return the first record with the highest value, None where none has one."""
    found = [record for record in records if record.get(quantity) is not None]
    return max(found, key=lambda record: record[quantity], default=None)


def is_tested(config: RetrainConfig, number: int) -> bool:
    """Return whether an epoch is followed by a test."""
    first = config.evaluation.first_epoch
    is_due = number >= first and (number - first) % config.evaluation.every == 0
    return is_due or number == config.epochs - 1


def model_spec(config: RetrainConfig, start: Start, *, epoch: int) -> ModelSpec:
    """Describe the network for its model directory.

    Args:
      config: of the training.
      start: network and data.
      epoch: after which the weights are taken.
    """
    network, (height, width, channels) = start.network, start.image_shape
    mean, std = start.statistics
    return ModelSpec(
        genotype=network.genotype,
        init_channels=network.init_channels,
        num_cells=network.num_cells,
        num_classes=network.num_classes,
        stem=network.stem,
        auxiliary=network.auxiliary,
        image_size=(height, width),
        image_channels=channels,
        normalization_mean=mean,
        normalization_std=std,
        class_names=start.data.class_names,
        provenance={
            "program": "train.retrain",
            "data": {
                "source": config.data.source,
                "name": config.data.name,
                "image_size": config.data.image_size,
                "fingerprint": start.about["data"]["fingerprint"],
            },
            "seed": config.seed,
            "epoch": epoch,
            "epochs": config.epochs,
        },
    )


def summary(
    config: RetrainConfig, records: Sequence[Record], variables: Any
) -> dict[str, Any]:
    """Return what a training came to; accuracies are shares of the test images.

    ``last_epoch_accuracy`` is the plain result; ``held_out_selected_accuracy`` that of
    the epoch with the best held-out accuracy; ``best_on_test_accuracy`` chooses the
    epoch on the test images themselves, as several papers do: too optimistic.

    Args:
      config: of the training.
      records: of all epochs.
      variables: of the network, to be counted.
    """
    chosen = {
        "last_epoch": records[-1],
        "held_out_selected": best_record(records, HELD_OUT),
        "best_on_test": best_record(records, TEST),
    }
    values: dict[str, Any] = {"format": FORMAT, "headline": config.evaluation.headline}
    values["accuracy"] = (chosen[config.evaluation.headline] or {}).get(TEST)
    for name, record in chosen.items():
        values[f"{name}_accuracy"] = (record or {}).get(TEST)
        values[f"{name}_epoch"] = (record or {}).get("epoch")
    values["held_out_accuracy"] = records[-1].get(HELD_OUT)
    params = variables["params"]
    without = {name: value for name, value in params.items() if name != "auxiliary"}
    values["num_parameters"] = sum(np.size(leaf) for leaf in jax.tree.leaves(without))
    return values


def epoch_line(record: Record, *, epochs: int) -> str:
    """Return a record as one line for people."""
    number = record["epoch"]
    parts = [
        f"epoch {number} ({number + 1}/{epochs})",
        f"loss {record['train/loss']:.3f}",
        f"training accuracy {100 * record['train/accuracy']:.1f} %",
    ]
    for key, name in ((HELD_OUT, "held out"), (TEST, "test")):
        if record.get(key) is not None:
            parts.append(f"{name} {100 * record[key]:.2f} %")
    seconds = record[f"{TIME_PREFIX}step_seconds"]
    if seconds is not None:
        parts.append(f"{format_seconds(seconds)}/step")
    return " | ".join(parts)
