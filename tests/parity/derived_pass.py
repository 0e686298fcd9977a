"""Our derived network on the inputs of a golden fixture, compiled once per fixture."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from golden import Golden, to_nhwc
from jaxtyping import PyTree

import adarts_jax as aj
from adarts_jax.networks.derived_network import DerivedNetwork
from adarts_jax.space import topology
from adarts_jax.space.genotype import Entry
from benchmarks.torch_reference import recipe_weights

# Compiling is what costs here; results agree all the same.
CHEAP = {"xla_backend_optimization_level": 0}


class Pass(NamedTuple):
    """What our network makes of a fixture's batch.

    Attributes:
      network: the network.
      eval_logits: with running statistics.
      logits: with batch statistics.
      logits_aux: of the auxiliary head, None without one.
      losses: loss, loss_main and, with an auxiliary head, loss_aux.
      gradients: by the original's names.
      after: statistics after the pass, by the original's names.
    """

    network: DerivedNetwork
    eval_logits: jax.Array
    logits: jax.Array
    logits_aux: jax.Array | None
    losses: dict[str, jax.Array]
    gradients: dict[str, Any]
    after: dict[str, Any]


class AnyLayers(NamedTuple):
    """A genotype whose entries may hold operations and attentions in either place.

    No published genotype does, and ours refuse it; cells can be built of it.
    """

    normal: tuple[Entry, ...]
    reduce: tuple[Entry, ...]

    def entries(self, cell_type: str) -> tuple[Entry, ...]:
        return self.reduce if cell_type == "reduce" else self.normal

    def concat(self, cell_type: str) -> tuple[int, ...]:
        return topology.concat_nodes(len(self.entries(cell_type)) // 2)


def _entries(entries: Any) -> tuple[Entry, ...]:
    return tuple(Entry(*entry) for entry in entries)


def make_network(golden: Golden) -> DerivedNetwork:
    """Build our derived network of a fixture's size."""
    entry, size = golden.entry, golden.entry["ctor"]
    imagenet = entry["upstream_class"].endswith("NetworkImageNet")
    fields: dict[str, Any] = dict(entry["genotype"])
    bottlenecks = {
        name: fields.pop(f"{name}_bottleneck", "") for name in topology.CELL_TYPES
    }
    if any(bottlenecks.values()):
        cells = (fields[name] for name in topology.CELL_TYPES)
        genotype: Any = AnyLayers(*map(_entries, cells))
    else:
        genotype = aj.Genotype(**fields)
    return DerivedNetwork(
        genotype,
        size["C"],
        size["layers"],
        size["num_classes"],
        "imagenet" if imagenet else "cifar",
        size["auxiliary"],
        bottlenecks=(bottlenecks["normal"], bottlenecks["reduce"]),
    )


def initial_state(golden: Golden) -> dict[str, Any]:
    """Rebuild the weights before the recorded passes (recipe of the README)."""
    return recipe_weights.recipe_state(golden.entry["seed"], golden.spec)


def eval_logits(
    network: DerivedNetwork, variables: PyTree, images: jax.Array
) -> jax.Array:
    """Evaluate; the auxiliary head must keep quiet."""
    logits, auxiliary = network.apply(variables, images, train=False)
    assert auxiliary is None
    return logits


def train_loss(
    params: PyTree,
    batch_stats: PyTree,
    images: jax.Array,
    labels: jax.Array,
    *,
    network: DerivedNetwork,
    aux_weight: float,
) -> tuple[jax.Array, PyTree]:
    """Return the loss and everything the pass leaves behind."""
    (logits, auxiliary), updates = network.apply(
        {"params": params, "batch_stats": batch_stats},
        images,
        train=True,
        mutable=["batch_stats"],
    )
    losses = {"loss_main": _cross_entropy(logits, labels)}
    losses["loss"] = losses["loss_main"]
    if auxiliary is not None:
        losses["loss_aux"] = _cross_entropy(auxiliary, labels)
        losses["loss"] += aux_weight * losses["loss_aux"]
    return losses["loss"], (logits, auxiliary, losses, updates)


@functools.cache
def run(golden: Golden) -> Pass:
    """Evaluate, then differentiate the loss, in one program."""
    network = make_network(golden)
    variables = aj.torch_weights.derived_variables(initial_state(golden), network)
    loss = functools.partial(
        train_loss, network=network, aux_weight=golden.entry["aux_weight"] or 0.0
    )

    @functools.partial(jax.jit, compiler_options=CHEAP)
    def both(variables: PyTree, images: jax.Array, labels: jax.Array) -> PyTree:
        gradients, kept = jax.grad(loss, has_aux=True)(
            variables["params"], variables["batch_stats"], images, labels
        )
        return eval_logits(network, variables, images), gradients, kept

    labels = jnp.asarray(golden["y"], jnp.int32)
    found, gradients, kept = both(variables, to_nhwc(golden["x"]), labels)
    logits, auxiliary, losses, updates = kept
    name = functools.partial(aj.torch_weights.derived_state_dict, network=network)
    after = name({"batch_stats": updates["batch_stats"]})
    return Pass(
        network, found, logits, auxiliary, losses, name({"params": gradients}), after
    )


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
