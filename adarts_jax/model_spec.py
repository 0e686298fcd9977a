"""What a trained model is, apart from its weights: the content of ``model.json``."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Self, get_args

import jax.numpy as jnp
from numpy.typing import DTypeLike

from adarts_jax.errors import UserError, did_you_mean
from adarts_jax.networks.derived_network import DerivedNetwork, check_images
from adarts_jax.space.genotype import Genotype
from adarts_jax.space.stack import Stem
from adarts_jax.space.topology import MAX_SIDE

FORMAT = "adarts-model/1"
MAX_TEXT = 4_000_000  # characters of a model.json; class names are most of it

_COUNTS = ("init_channels", "num_cells", "num_classes", "image_channels")


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A derived network, the images it expects and the names of its classes.

    Plain sequences are accepted and stored as tuples.

    Attributes:
      genotype: both cells.
      init_channels: width of the first cell.
      num_cells: cells in all.
      num_classes: outputs.
      stem: "cifar" or "imagenet".
      auxiliary: whether the weights contain the auxiliary head.
      image_size: height and width of the training images, in pixels.
      image_channels: channels of the images.
      normalization_mean: per channel, of pixels scaled to [0, 1].
      normalization_std: per channel, of pixels scaled to [0, 1].
      class_names: one per output.
      provenance: where the weights come from; anything JSON can hold.

    Raises:
      UserError: a value is of the wrong kind or does not fit the others.
    """

    genotype: Genotype
    init_channels: int
    num_cells: int
    num_classes: int
    stem: Stem
    auxiliary: bool
    image_size: tuple[int, int]
    image_channels: int
    normalization_mean: tuple[float, ...]
    normalization_std: tuple[float, ...]
    class_names: tuple[str, ...]
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every value, then that they fit together."""
        for name in _COUNTS:
            if not _is_count(getattr(self, name)):
                _refuse(name, getattr(self, name), "a whole number of at least 1")
        if self.stem not in get_args(Stem):
            _refuse("stem", self.stem, f"one of {', '.join(get_args(Stem))}")
        if not isinstance(self.auxiliary, bool):
            _refuse("auxiliary", self.auxiliary, "true or false")
        sides = f"height and width in pixels, up to {MAX_SIDE}"
        self._store("image_size", lambda v: _is_count(v) and v <= MAX_SIDE, 2, sides)
        per_channel = f"one number per image channel ({self.image_channels})"
        self._store("normalization_mean", _is_finite, self.image_channels, per_channel)
        self._store(
            "normalization_std",
            lambda value: _is_finite(value) and value > 0,
            self.image_channels,
            f"{per_channel}, above 0",
        )
        self._store(
            "class_names",
            lambda value: isinstance(value, str),
            self.num_classes,
            f"one text per class (num_classes={self.num_classes})",
        )
        if not isinstance(self.provenance, Mapping):
            _refuse("provenance", self.provenance, "an object")
        check_images(self.make_network(), self.image_size, auxiliary=self.auxiliary)

    def make_network(
        self, *, dtype: DTypeLike = jnp.float32, remat: bool = False
    ) -> DerivedNetwork:
        """Build the network; how it computes is not part of what it is.

        Args:
          dtype: type of the arithmetic.
          remat: trade work for memory while training.
        """
        return DerivedNetwork(
            self.genotype,
            self.init_channels,
            self.num_cells,
            self.num_classes,
            self.stem,
            self.auxiliary,
            dtype,
            remat,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return (*self.image_size, self.image_channels)

    def to_json(self) -> str:
        """Return the text of ``model.json``."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        value = {"format": FORMAT, **fields, "genotype": self.genotype.to_dict()}
        value["provenance"] = dict(self.provenance)
        return json.dumps(value, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text of a ``model.json``.

        Raises:
          UserError: not JSON, another format, unknown or missing keys, a bad value.
        """
        value = _parse(text)
        if value.get("format") != FORMAT:
            raise UserError(
                f"format is {value.get('format')!r:.60}, expected '{FORMAT}'; it was "
                "written by another program or version"
            )
        known = [field.name for field in dataclasses.fields(cls)]
        for key in value:
            if key not in ("format", *known):
                raise UserError(f"unknown key '{key[:60]}'{did_you_mean(key, known)}")
        missing = [name for name in known if name not in value]
        if missing:
            raise UserError(f"it lacks {', '.join(missing)}")
        fields = {name: value[name] for name in known}
        return cls(**{**fields, "genotype": Genotype.from_dict(fields["genotype"])})

    def _store(
        self,
        name: str,
        is_valid: Callable[[Any], bool],
        length: int,
        expected: str,
    ) -> None:
        """Check a sequence and keep it as a tuple."""
        value = getattr(self, name)
        if (
            not isinstance(value, Sequence)
            or isinstance(value, str)
            or len(value) != length
            or not all(map(is_valid, value))
        ):
            _refuse(name, value, expected)
        object.__setattr__(self, name, tuple(value))


def _parse(text: str) -> Mapping[str, Any]:
    if len(text) > MAX_TEXT:
        raise UserError(f"it is too large ({len(text)} characters)")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"not valid JSON{where}; copy the model again") from None
    if not isinstance(value, Mapping):
        raise UserError("expected a JSON object")
    return value


def _refuse(name: str, value: object, expected: str) -> NoReturn:
    count = f" ({len(value)} values)" if isinstance(value, list | tuple) else ""
    raise UserError(f"{name}={value!r:.80}{count}: expected {expected}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_finite(value: Any) -> bool:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and math.isfinite(value)
