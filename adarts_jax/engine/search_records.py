"""What a search writes down: records, lines for people, the files of the result."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adarts_jax import architecture
from adarts_jax.architecture import ArchitectureParams
from adarts_jax.discretize import discretize, none_edge_share
from adarts_jax.engine import files
from adarts_jax.engine.console import format_seconds
from adarts_jax.engine.metrics import TIME_PREFIX
from adarts_jax.engine.run_directory import RunDirectory
from adarts_jax.methods import Method
from adarts_jax.space import topology
from adarts_jax.space.genotype import Genotype, operation_shares


def current_genotype(arch: ArchitectureParams, method: Method) -> Genotype:
    """Return the genotype the architecture stands for now."""
    return discretize(
        jax.device_get(arch),
        method.primitives,
        rule=method.discretize_rule,
        attentions=method.attentions,
    )


def describe_architecture(
    arch: ArchitectureParams, method: Method, genotype: Genotype
) -> dict[str, Any]:
    """Return entropies (nats) of the weights, and shares of operations (0 to 1).

    ``architecture/entropy_*`` is the mean over edges of the entropy of the operation
    weights, ``architecture/edge_entropy_*`` the sum over nodes of that of the edge
    weights, ``architecture/*/none_edges`` the share of edges that would rather not be,
    ``genotype/*`` the share of skips, pools and nones among the chosen operations.
    """
    values: dict[str, Any] = {}
    for name, weights in architecture_weights(arch).items():
        kind, _, cell_type = name.partition("_weights_")
        prefix = "" if kind == "op" else f"{kind}_"
        entropy = np.asarray(architecture.entropy(weights))
        values[f"architecture/{prefix}entropy_{cell_type}"] = entropy[()]
    host = jax.device_get(arch)
    none = none_edge_share(host, method.primitives)
    values |= {f"architecture/{name}": share for name, share in none.items()}
    shares = operation_shares(genotype)
    return values | {f"genotype/{name}": share for name, share in shares.items()}


def architecture_weights(arch: ArchitectureParams) -> dict[str, jax.Array]:
    """Return ``op_weights_*``, ``edge_weights_*`` and ``attention_weights_*``.

    Their shapes are (edge, op), (edge,) and (edge, attention).
    """
    weights: dict[str, jax.Array] = {}
    for cell_type in topology.CELL_TYPES:
        alpha, beta = arch.alpha(cell_type), arch.beta(cell_type)
        weights[f"op_weights_{cell_type}"] = architecture.op_weights(alpha)
        if beta is not None:
            weights[f"edge_weights_{cell_type}"] = architecture.edge_weights(beta)
        attention = arch.attention(cell_type)
        if attention is not None:
            weights[f"attention_weights_{cell_type}"] = jax.nn.softmax(attention, -1)
    return weights


def epoch_line(record: Mapping[str, Any], *, epochs: int, warmup_epochs: int) -> str:
    """Return a record as one line for people."""
    number = record["epoch"]
    share = 100 * record["weight/accuracy"]
    parts = [
        f"epoch {number} ({number + 1}/{epochs})",
        f"weights: loss {record['weight/loss']:.3f}, accuracy {share:.1f} %",
    ]
    if number < warmup_epochs:
        parts.append(f"architecture frozen until epoch {warmup_epochs}")
    else:
        share = 100 * record["architecture/accuracy"]
        loss = record["architecture/loss"]
        entropy = record["architecture/entropy_normal"]
        parts.append(f"architecture: loss {loss:.3f}, accuracy {share:.1f} %")
        parts.append(f"entropy {entropy:.3f}")
    skips = [record[f"genotype/{t}/skip"] for t in topology.CELL_TYPES]
    parts.append("skips " + " + ".join(f"{s:.0%}" for s in skips))
    seconds = record[f"{TIME_PREFIX}step_seconds"]
    if seconds is not None:
        parts.append(f"{format_seconds(seconds)}/step")
    return " | ".join(parts)


def write_result(
    run: RunDirectory, arch: ArchitectureParams, method: Method, genotype: Genotype
) -> None:
    """Write the weights of the architecture, pictures, report and, last, the genotype.

    Args:
      run: where.
      arch: final architecture.
      method: names its operations.
      genotype: the result.
    """
    # Loads matplotlib, which a run needs only when it ends.
    from adarts_jax.report import page

    arrays = {name: np.asarray(w) for name, w in architecture_weights(arch).items()}
    names = np.array(method.primitives)

    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # given a name, NumPy would change it
            np.savez(file, allow_pickle=False, primitives=names, **arrays)

    files.replace(run.architecture, write)
    page.report_run(run.path, result=genotype)
    files.write_text(run.genotype, genotype.to_json())
