"""The weight step of a derived network: a pure function on an explicit state.

No schedules, no data, no host work here.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from adarts_jax.bilevel.optimizers import descend, global_norm
from adarts_jax.training.loss import heads_loss

Batch = tuple[
    Float[Array, "batch height width channel"],
    Int[Array, " batch"],
    Float[Array, "batch class"],
]
QUANTITIES = ("loss", "accuracy", "gradient_norm")


@struct.dataclass
class RetrainState:
    """All that training changes; arrays only, so that a checkpoint is the state.

    Attributes:
      step: steps done, int32 scalar.
      variables: ``params`` and ``batch_stats``.
      opt_state: state of the optimizer.
      mean_variables: running mean of the variables; None where there is none.
    """

    step: PyTree
    variables: PyTree
    opt_state: PyTree
    mean_variables: PyTree

    @property
    def tested_variables(self) -> PyTree:
        """What is tested and saved: the running mean, where there is one."""
        return self.variables if self.mean_variables is None else self.mean_variables


def init_state(
    variables: PyTree, optimizer: optax.GradientTransformation, *, keep_mean: bool
) -> RetrainState:
    """Return the state before the first step.

    Args:
      variables: ``params`` and ``batch_stats``.
      optimizer: of the weights.
      keep_mean: whether a running mean of the variables is kept.
    """
    return RetrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=optimizer.init(variables["params"]),
        # A copy: the state is given away as a whole, each array once.
        mean_variables=jax.tree.map(jnp.copy, variables) if keep_mean else None,
    )


def retrain_step(
    state: RetrainState,
    batch: Batch,
    key: PRNGKeyArray,
    *,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    auxiliary_weight: float,
    mean_decay: float | None,
    learning_rate: Float[Array, ""] | float,
    drop_path_rate: Float[Array, ""] | float,
) -> tuple[RetrainState, Float[Array, " quantity"]]:
    """Take one step of SGD.

    Args:
      state: the state before.
      batch: images, labels (for the accuracy) and targets (for the loss).
      key: randomness of drop path.
      network: a derived network.
      optimizer: see ``bilevel.optimizers.make_optimizers``.
      auxiliary_weight: of the auxiliary head's loss, if the network has one.
      mean_decay: share of the running mean that is kept; None where none is kept.
      learning_rate: may be traced.
      drop_path_rate: may be traced; a plain 0 leaves drop path out of the program.

    Returns:
      The new state and the ``QUANTITIES``: loss (nats, all terms), accuracy on the
      labels in [0, 1], norm of the gradient before clipping.
    """
    loss, logits, batch_stats, gradient = _differentiate(
        state, batch, key, network, auxiliary_weight, drop_path_rate
    )
    params, opt_state = descend(
        optimizer, gradient, state.opt_state, state.variables["params"], learning_rate
    )
    variables = {"params": params, "batch_stats": batch_stats}
    state = RetrainState(
        step=state.step + 1,
        variables=variables,
        opt_state=opt_state,
        mean_variables=update_mean(state.mean_variables, variables, mean_decay),
    )
    accuracy = (logits.argmax(-1) == batch[1]).mean()
    values = [loss, accuracy, global_norm(gradient)]
    return state, jnp.stack(values).astype(jnp.float32)


def update_mean(mean: PyTree, new: PyTree, decay: float | None) -> PyTree:
    """Return ``decay * mean + (1 - decay) * new``; None stays None."""
    if decay is None:
        return None
    return jax.tree.map(lambda m, n: decay * m + (1 - decay) * n, mean, new)


def _differentiate(
    state: RetrainState,
    batch: Batch,
    key: PRNGKeyArray,
    network: nn.Module,
    auxiliary_weight: float,
    drop_path_rate: Float[Array, ""] | float,
) -> tuple[Array, Array, PyTree, PyTree]:
    """Return loss, logits, new running statistics and the gradient of the weights."""
    images, _, targets = batch

    def loss_of(params: PyTree) -> tuple[Array, tuple]:
        (logits, auxiliary), updates = network.apply(
            state.variables | {"params": params},
            images,
            train=True,
            drop_path_rate=drop_path_rate,
            mutable=["batch_stats"],
            rngs={"drop_path": key},
        )
        loss = heads_loss(logits, auxiliary, targets, auxiliary_weight)
        return loss, (logits, updates["batch_stats"])

    differentiate = jax.value_and_grad(loss_of, has_aux=True)
    (loss, (logits, stats)), gradient = differentiate(state.variables["params"])
    return loss, logits, stats, gradient
