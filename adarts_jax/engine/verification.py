"""A converted model beside the PyTorch reference: same images, same answers?"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from adarts_jax.engine import compilation
from adarts_jax.engine.outcomes import RunStopped
from adarts_jax.errors import UserError
from adarts_jax.model_directory import Model
from adarts_jax.model_spec import ModelSpec
from adarts_jax.networks.derived_network import DerivedNetwork
from adarts_jax.torch_weights.layouts import plain_names
from adarts_jax.torch_weights.reader import import_torch

# Largest difference, as a share of the largest value. Batch statistics divide by
# standard deviations of few values, which lets rounding grow.
TOLERANCE = 1e-4
BATCH_STATISTICS_TOLERANCE = 1e-3
EVALUATION_OUTPUT, AUXILIARY_OUTPUT = "logits", "auxiliary_logits"
BATCH = 50


class VerificationFailed(RunStopped):
    """Both programs ran, and their answers differ by more than rounding."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One output of both networks.

    Attributes:
      largest_difference: of two values.
      relative: the same as a share of the largest value of the reference.
    """

    largest_difference: float
    relative: float


@dataclasses.dataclass(frozen=True)
class Verification:
    """All outputs of both networks on the same images.

    Attributes:
      outputs: comparison by output: ``logits`` with running statistics and, where
        there is an auxiliary head, ``auxiliary_logits`` with batch statistics.
      num_images: how many were shown.
      predictions_agree: share of images with the same prediction.
    """

    outputs: Mapping[str, Comparison]
    num_images: int
    predictions_agree: float

    @property
    def passed(self) -> bool:
        """Whether every difference is one of rounding."""
        return all(
            output.relative <= tolerance(name) for name, output in self.outputs.items()
        )

    def record(self) -> dict[str, Any]:
        """Return the numbers by name, as JSON holds them."""
        return {**dataclasses.asdict(self), "passed": self.passed}


def tolerance(output: str) -> float:
    """Return the largest relative difference that an output may have."""
    return TOLERANCE if output == EVALUATION_OUTPUT else BATCH_STATISTICS_TOLERANCE


def check_reference(spec: ModelSpec) -> None:
    """Check that there is a PyTorch network to compare a model with.

    Raises:
      UserError: there is none.
    """
    import_torch()
    from adarts_jax.torch_reference import attention, primitives

    for entry in (*spec.genotype.normal, *spec.genotype.reduce):
        for layer, known in (
            (entry.op, primitives.NAMES),
            (entry.attention or "Identity", attention.ATTENTIONS),
        ):
            if layer not in known:
                raise UserError(
                    f"there is no PyTorch reference of {layer} to verify by; leave "
                    "--verify out"
                )


def random_images(spec: ModelSpec, count: int) -> np.ndarray:
    """Return normalised images of noise, the same on every machine."""
    draw = np.random.RandomState(0)
    return draw.standard_normal((count, *spec.image_shape)).astype(np.float32)


def verify(
    model: Model, state_dict: Mapping[str, np.ndarray], images: np.ndarray
) -> Verification:
    """Run the PyTorch reference and our network on the same images.

    Args:
      model: ours.
      state_dict: theirs, as it came from the file; loaded strictly.
      images: normalised, NHWC float32, at least two.

    Raises:
      UserError: PyTorch is missing or too old, or the reference has no such network.
    """
    reference = _make_reference(model.spec, state_dict)
    size = min(len(images), BATCH)
    shape = jax.ShapeDtypeStruct((size, *images.shape[1:]), jnp.float32)
    run = partial(_our_outputs, network=model.network)
    ours = compilation.compile_quickly(run, model.variables, shape).call
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    # The last batch, where it is not full, starts earlier instead of being padded.
    for start in range(0, len(images), size):
        batch = images[min(start, len(images) - size) :][:size]
        found = ours(model.variables, jnp.asarray(batch))
        for name, wanted in _their_outputs(reference, batch).items():
            pairs.setdefault(name, []).append((np.asarray(found[name]), wanted))
    agree = [a.argmax(1) == b.argmax(1) for a, b in pairs[EVALUATION_OUTPUT]]
    return Verification(
        outputs={name: _compare(found) for name, found in pairs.items()},
        num_images=len(images),
        predictions_agree=float(np.mean(agree)),
    )


def check_passed(verification: Verification | None) -> None:
    """Let nothing pass that differs by more than rounding.

    Raises:
      VerificationFailed: an output does.
    """
    if verification is None or verification.passed:
        return
    found = verification.outputs
    name = max(found, key=lambda name: found[name].relative / tolerance(name))
    raise VerificationFailed(
        f"{name} differ by {found[name].relative:.2g} of their largest value, more "
        f"than {tolerance(name):g}; the conversion is wrong, or one of the networks"
    )


def _our_outputs(
    variables: PyTree, images: Array, *, network: DerivedNetwork
) -> dict[str, Array]:
    """Return every output by name; the auxiliary head only runs in train mode."""
    logits, _ = network.apply(variables, images, train=False)
    if not network.auxiliary:
        return {EVALUATION_OUTPUT: logits}
    # What the head does not need is left out by the compiler.
    (_, auxiliary), _ = network.apply(
        variables, images, train=True, mutable=["batch_stats"]
    )
    return {EVALUATION_OUTPUT: logits, AUXILIARY_OUTPUT: auxiliary}


def _their_outputs(reference: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    torch = import_torch()
    batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    with torch.no_grad(), _one_thread(torch):
        outputs = {EVALUATION_OUTPUT: reference.eval()(batch)[0].numpy()}
        if reference.auxiliary_head is not None:
            outputs[AUXILIARY_OUTPUT] = reference.train()(batch)[1].numpy()
    return outputs


@contextlib.contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    """On a busy machine PyTorch's threads wait for each other: six times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _make_reference(spec: ModelSpec, state_dict: Mapping[str, np.ndarray]) -> Any:
    """Build the PyTorch network of a spec and give it the weights of a file."""
    torch = import_torch()
    from adarts_jax.torch_reference import derived_network

    check_reference(spec)
    genotype = spec.genotype
    stems = {
        "cifar": derived_network.CifarNetwork,
        "imagenet": derived_network.ImageNetNetwork,
    }
    network = stems[spec.stem](
        derived_network.Genotype(
            genotype.normal,
            genotype.normal_concat,
            genotype.reduce,
            genotype.reduce_concat,
        ),
        spec.init_channels,
        spec.num_cells,
        spec.num_classes,
        auxiliary=spec.auxiliary,
        image_channels=spec.image_channels,
    )
    tensors = {k: torch.from_numpy(v) for k, v in plain_names(state_dict).items()}
    network.load_state_dict(tensors, strict=True)
    for layer in network.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = 0.0  # train mode must not change what eval mode uses
    return network


def _compare(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Comparison:
    # NumPy's maximum, not Python's, which can overlook a NaN; what is NaN never passes.
    largest = float(np.max([np.abs(ours - theirs).max() for ours, theirs in pairs]))
    scale = float(np.max([np.abs(theirs).max() for _, theirs in pairs]))
    relative = 0.0 if largest == 0 else largest / scale if scale != 0 else math.inf
    return Comparison(largest, relative)
