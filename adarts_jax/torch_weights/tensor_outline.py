"""A tensor as a pickle announces it: which stored numbers it would show, and how.

Checked before any number is read; nothing here knows files or pickles.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from adarts_jax.errors import UserError

RESAVE = "save its state_dict() alone, of plain tensors"

# Bytes per element.
STORAGES: Mapping[str, int] = {
    "torch.DoubleStorage": 8,
    "torch.FloatStorage": 4,
    "torch.HalfStorage": 2,
    "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8,
    "torch.IntStorage": 4,
    "torch.ShortStorage": 2,
    "torch.CharStorage": 1,
    "torch.ByteStorage": 1,
    "torch.BoolStorage": 1,
}


class OutlineError(UserError):
    """The pickle is not that of a state dict; says why, the caller knows the file."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of numbers stored outside the pickle.

    Attributes:
      key: its name in the file.
      numel: elements it claims to have.
      itemsize: bytes per element.
    """

    key: str
    numel: int
    itemsize: int

    @property
    def nbytes(self) -> int:
        """Bytes it claims to have."""
        return self.numel * self.itemsize


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage, already known to lie inside of it.

    Attributes:
      storage: where its numbers are.
      shape: of the tensor.
    """

    storage: Storage
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of a copy."""
        return math.prod(self.shape) * self.storage.itemsize


def describe_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """Describe a tensor, after checking that every element is a stored one.

    Expanded tensors (one number shown many times) cost their full size once copied; no
    network has them, and a file of 2 kB could ask for any amount of memory.

    Args:
      storage: a `Storage`, if all is well; so are the following.
      offset: of the first element, in elements.
      shape: lengths of the axes.
      strides: elements from one to the next, per axis.

    Raises:
      OutlineError: the values are no tensor, or not all of it is stored.
    """
    if not isinstance(storage, Storage):
        raise OutlineError("is damaged: a tensor without a storage")
    lists = isinstance(shape, tuple) and isinstance(strides, tuple)
    if not lists or not all(map(is_size, (offset, *shape, *strides))):
        raise OutlineError("is damaged: a tensor whose shape is no list of numbers")
    if len(shape) != len(strides) or len(shape) > 8:
        raise OutlineError("is damaged: shape and strides of a tensor differ in length")
    reach = 1
    for stride, length in sorted(zip(strides, shape, strict=True)):
        if length > 1 and stride < reach:
            raise OutlineError(
                f"has a tensor of shape {shape} that shows the same numbers more than "
                f"once (strides {strides}); {RESAVE}, made contiguous"
            )
        reach = max(reach, stride * length) if length != 1 else reach
    last = sum(s * (n - 1) for s, n in zip(strides, shape, strict=True))
    if 0 not in shape and offset + last >= storage.numel:
        raise OutlineError(
            f"has a tensor of shape {shape} that is larger than the {storage.numel} "
            "numbers stored for it; the file is damaged or made up"
        )
    return Tensor(storage, shape)


def is_size(value: Any) -> bool:
    """Whether a value can be a length, a stride or a number of elements."""
    return type(value) is int and 0 <= value < 2**40
