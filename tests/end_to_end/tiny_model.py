"""A model directory so small that using it costs next to nothing."""

from pathlib import Path

import jax
import numpy as np

import adarts_jax as aj
from adarts_jax.model_directory import save_model
from adarts_jax.model_spec import ModelSpec
from adarts_jax.networks.derived_network import init_variables

CELL = [("max_pool_3x3", 0), ("skip_connect", 1)]
SPEC = ModelSpec(
    genotype=aj.Genotype(CELL, [2], CELL, [2]),
    init_channels=4,
    num_cells=1,
    num_classes=10,
    stem="cifar",
    auxiliary=False,
    image_size=(8, 8),
    image_channels=1,
    normalization_mean=(0.3,),
    normalization_std=(0.4,),
    class_names=tuple("0123456789"),
    provenance={"data": {"source": "digits"}},
)


def write_tiny_model(folder: Path, spec: ModelSpec = SPEC) -> None:
    """Save random weights."""
    network = spec.make_network()
    variables = init_variables(network, jax.random.key(0), spec.image_shape)
    save_model(folder, spec, jax.tree.map(np.asarray, variables))
