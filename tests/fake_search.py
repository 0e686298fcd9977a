"""A search on a linear classifier: the interface of the real one, compiled in a second.

Both updates are plain gradient steps; the architecture scales the pixels, so that it
has a gradient and the losses depend on it.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
from flax import struct

from adarts_jax import architecture
from adarts_jax.bilevel.steps import ARCHITECTURE, WEIGHT
from adarts_jax.engine import pacing, search_problem, search_program
from adarts_jax.report import page
from adarts_jax.space.operations import DARTS_PRIMITIVES


@struct.dataclass
class FakeState:
    step: object
    params: object
    arch: object


def init_state(network, arch, optimizers, *, image_shape, key):
    height, width, channels = image_shape
    shape = (height * width * channels, network.num_classes)
    params = {"kernel": 0.1 * jax.random.normal(key, shape)}
    return FakeState(jnp.int32(0), params, arch)


def loss_of(params, arch, batch):
    images, labels = batch
    scale = 1 + architecture.op_weights(arch.alpha_normal)[0, 0]
    scale += architecture.edge_weights(arch.beta_normal)[0]
    logits = (scale * images.reshape(len(images), -1)) @ params["kernel"]
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    accuracy = (logits.argmax(-1) == labels).mean(dtype=jnp.float32)
    return -chosen.mean(), accuracy


def descend(params, gradient, rate):
    return jax.tree.map(lambda p, g: p - rate * g, params, gradient)


def norm(tree):
    return jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(tree)))


def search_phase(
    state,
    batch,
    phase,
    *,
    network,
    optimizers,
    weight_learning_rate,
    architecture_learning_rate,
):
    differentiate = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
    (loss, accuracy), slopes = differentiate(state.params, state.arch, batch)
    is_architecture = phase == ARCHITECTURE
    to_params, to_arch = slopes
    params = descend(state.params, to_params, ~is_architecture * weight_learning_rate)
    arch = descend(state.arch, to_arch, is_architecture * architecture_learning_rate)
    size = jnp.where(is_architecture, norm(to_arch), norm(to_params))
    values = jnp.stack([loss, accuracy, size, jnp.float32(0)])
    return FakeState(state.step + (phase == WEIGHT), params, arch), values


METHOD = SimpleNamespace(
    name="alpha_adarts",
    primitives=DARTS_PRIMITIVES,
    discretize_rule="edge_weighted",
    attentions=(),
    trains_architecture=True,
    draws=lambda options: False,
    make_network=lambda **sizes: SimpleNamespace(**sizes),
    init_architecture=lambda key, *, initialization: architecture.init_architecture(
        key, num_primitives=len(DARTS_PRIMITIVES)
    ),
)


def install(monkeypatch):
    """Put the fake in the place of network, optimizers and steps."""
    monkeypatch.setattr(search_problem, "METHODS", {"alpha_adarts": METHOD})
    monkeypatch.setattr(search_program, "init_state", init_state)
    monkeypatch.setattr(search_problem, "search_phase", search_phase)
    monkeypatch.setattr(search_problem, "make_optimizers", lambda **settings: None)


def install_quick(monkeypatch):
    """Install it without pictures, looking at the signals after each step."""
    install(monkeypatch)
    monkeypatch.setattr(pacing, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(page, "report_run", lambda place, result: None)
