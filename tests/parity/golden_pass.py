"""Our search network on the inputs of a golden fixture."""

import functools
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from golden import Golden, architecture, initial_variables, make_network, to_nhwc
from jaxtyping import PyTree

from adarts_jax import architecture as arch_math
from adarts_jax.bilevel.gradients import Gradients, first_order
from adarts_jax.edges.wave import cell_waves
from adarts_jax.networks.search_network import SearchNetwork
from adarts_jax.nn import partial_channels
from adarts_jax.space import topology

# In float32 these meet a kink of a ReLU within rounding; in float64 they agree
# to 1e-15. B1 does so only as tests compile it, without optimization.
FLOAT64 = {
    "B1_alpha_full",
    "B5_att_after_every_3cells",
    "B5_att_no_attention_3cells",
}


class Evaluation(NamedTuple):
    """One pass with running statistics."""

    logits: jax.Array
    intermediates: PyTree


class Pass(NamedTuple):
    """What our network makes of a fixture's batch.

    Attributes:
      network: the network.
      variables: its variables before the pass.
      arch: the architecture parameters.
      gradients: result of the pass with batch statistics.
      intermediates: what that pass recorded, by module.
    """

    network: SearchNetwork
    variables: PyTree
    arch: PyTree
    gradients: Gradients
    intermediates: PyTree


class Recording:
    """A network whose batch statistics carry everything that a pass records."""

    def __init__(self, network: SearchNetwork) -> None:
        self._network = network

    def apply(self, *args: Any, **kwargs: Any) -> tuple[jax.Array, PyTree]:
        """Apply the network, keeping the cell inputs and the attention too."""
        logits, updates = self._network.apply(
            *args, **kwargs, capture_intermediates=_is_wanted
        )
        return logits, {**updates, "batch_stats": updates}


def _is_wanted(module: Any, method: str) -> bool:
    wanted = ("preprocess0", "preprocess1", "attention")
    return method == "__call__" and module.name in wanted


def differentiate(
    network: SearchNetwork,
    params: PyTree,
    arch: PyTree,
    batch_stats: PyTree,
    batch: PyTree,
) -> tuple[Gradients, PyTree]:
    """Return ``first_order`` and what its pass recorded."""
    recording: Any = Recording(network)
    gradients = first_order(recording, params, arch, batch_stats, batch)
    updates = gradients.batch_stats
    return (
        gradients._replace(batch_stats=updates["batch_stats"]),
        updates["intermediates"],
    )


gradients_of = jax.jit(differentiate, static_argnums=0)  # compiled once per size


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(
    network: SearchNetwork, variables: PyTree, arch: PyTree, images: jax.Array
) -> Evaluation:
    logits, updates = network.apply(
        variables, arch, images, train=False, mutable=["intermediates"]
    )
    return Evaluation(logits, updates.get("intermediates", {}))


@functools.cache
def train_pass(golden: Golden) -> Pass:
    """Differentiate the loss of the fixture's batch."""
    with jax.enable_x64(golden.name in FLOAT64):
        return _train_pass(golden, *_inputs(golden))


def _inputs(golden: Golden) -> tuple[SearchNetwork, PyTree, PyTree, jax.Array]:
    """Return network, variables, architecture and images, in the chosen precision."""
    arrays = initial_variables(golden), architecture(golden, "arch"), golden["x"]
    dtype = jnp.float64 if golden.name in FLOAT64 else jnp.float32
    variables, arch, images = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, dtype), arrays
    )
    return make_network(golden), variables, arch, to_nhwc(images)


def _train_pass(
    golden: Golden,
    network: SearchNetwork,
    variables: PyTree,
    arch: PyTree,
    images: jax.Array,
) -> Pass:
    batch = images, jnp.asarray(golden["y"])
    inputs = network, variables["params"], arch, variables["batch_stats"], batch
    selection = golden.entry["selection"]
    ties_of_torch = golden.entry["topk_tie_order"] == "torch CPU"
    if ties_of_torch and selection and selection["tied_edges_train"]:
        return Pass(network, variables, arch, *_gradients_with_ties(golden, *inputs))
    return Pass(network, variables, arch, *gradients_of(*inputs))


def _gradients_with_ties(
    golden: Golden, network: SearchNetwork, *inputs: PyTree
) -> tuple[Gradients, PyTree]:
    """Like ``gradients_of``; tied edges take the channels that upstream happened to."""
    stored = iter(
        golden[f"select/train/cell{cell}"][list(wave.edges)]
        for cell in range(network.num_cells)
        for wave in cell_waves()
    )
    ours = partial_channels.top_channels

    def top_channels(scores: jax.Array, count: int) -> jax.Array:
        tied = partial_channels.all_tied(scores)
        return jnp.where(tied[:, None], next(stored), ours(scores, count))

    compiled_anew = jax.jit(differentiate, static_argnums=0)
    with mock.patch.object(partial_channels, "top_channels", top_channels):
        return compiled_anew(network, *inputs)


@functools.cache
def eval_pass(golden: Golden) -> Evaluation:
    """Run the fixture's batch with the initial running statistics."""
    with jax.enable_x64(golden.name in FLOAT64):
        return _evaluate(*_inputs(golden))


def selected_channels(intermediates: PyTree, cell: int) -> np.ndarray:
    """Return the channels of every edge of a cell, (edge, selected)."""
    rows: dict[int, np.ndarray] = {}
    for index, wave in enumerate(cell_waves()):
        record = intermediates[f"cell_{cell}"][f"wave_{index}"]
        rows |= dict(zip(wave.edges, record["selected_channels"][0], strict=True))
    return np.stack([rows[edge] for edge in range(topology.num_edges())])


def tied_edges(intermediates: PyTree, cell: int) -> list[int]:
    """Return the number of tied edges in every wave of a cell."""
    records = [
        intermediates[f"cell_{cell}"][f"wave_{index}"]
        for index in range(len(cell_waves()))
    ]
    return [int(record["tied_edges"][0]) for record in records]


class Edge(NamedTuple):
    """One edge by itself: op weights, input, attention if any, output."""

    op_weights: jax.Array
    state: jax.Array
    attention: jax.Array | None
    output: jax.Array


def edge_alone(done: Pass, cell: int, edge: int) -> Edge:
    """Return what one edge that leaves a cell's inputs receives and makes of it.

    The wave it belongs to runs with edge weights of 1 for this edge and 0 for all
    others, so that its target receives it alone.
    """
    network, wave = done.network, cell_waves()[0]
    row = wave.edges.index(edge)
    name, reduction = (
        f"cell_{cell}",
        cell in topology.reduction_cells(network.num_cells),
    )
    module = network.edges(
        wave=wave,
        primitives=network.primitives,
        stride=2 if reduction else 1,
        channel_divisor=network.channel_divisors[cell],
    )
    variables = {kind: done.variables[kind][name]["wave_0"] for kind in done.variables}
    recorded = done.intermediates[name]
    states = tuple(recorded[f"preprocess{s}"]["__call__"][0] for s in wave.sources)
    alpha = done.arch.alpha("reduce" if reduction else "normal")
    weights = arch_math.op_weights(alpha)
    chosen = jnp.zeros(len(weights)).at[edge].set(1.0)
    alone = arch_math.CellWeights(weights, chosen)
    attention = recorded.get("wave_0", {}).get("attention", {}).get("__call__")
    return Edge(
        weights,
        states[wave.edge_sources[row]],
        attention and attention[0][row],
        _run_edges(module, variables, states, alone)[wave.edge_targets[row]],
    )


@functools.partial(jax.jit, static_argnums=0)
def _run_edges(module: Any, variables: PyTree, *inputs: PyTree) -> list[jax.Array]:
    return module.apply(variables, *inputs, train=True, mutable=["batch_stats"])[0]
