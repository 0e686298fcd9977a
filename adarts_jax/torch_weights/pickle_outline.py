"""What a pickle of ``torch.save`` would build, read without building or running it.

The instructions are walked through one by one. Only those that a state dict needs are
known; a name outside the short list below is refused before anything could follow it,
and a name inside stands for a description, never for the object itself.
"""

import dataclasses
import itertools
import pickletools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, NoReturn

from adarts_jax.torch_weights.tensor_outline import (
    RESAVE,
    STORAGES,
    OutlineError,
    Storage,
    Tensor,
    describe_tensor,
    is_size,
)

# A network of 20 cells needs 54,000; more than this is an attempt to use up memory.
MAX_INSTRUCTIONS = 400_000
PROTOCOL = 2
MAX_ARGUMENT = 64 * 2**10  # bytes of one text or number in the pickle

_VERSIONS = "_metadata"
_ORDERED_DICT = "collections.OrderedDict"
_PARAMETER = "torch._utils._rebuild_parameter"
_TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_KNOWN = {*STORAGES, _ORDERED_DICT, _PARAMETER, *_TENSORS}

# Why the usual other names do not belong there.
_REASONS: Mapping[str, str] = {
    "torch._utils._rebuild_sparse_tensor": "holds a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "holds a sparse tensor",
    "torch._utils._rebuild_qtensor": "holds a quantized tensor",
    "numpy.core.multiarray.scalar": "holds a NumPy number beside the tensors",
    "numpy._core.multiarray.scalar": "holds a NumPy number beside the tensors",
    "numpy.core.multiarray._reconstruct": "holds a NumPy array beside the tensors",
    "numpy._core.multiarray._reconstruct": "holds a NumPy array beside the tensors",
}


@dataclasses.dataclass(frozen=True)
class Outline:
    """The content of one pickle.

    Attributes:
      root: containers, numbers, texts and `Tensor`.
      tensors: every tensor that would be built.
    """

    root: Any
    tensors: Sequence[Tensor]

    @property
    def storages(self) -> frozenset[Storage]:
        """Every storage that would be read."""
        return frozenset(tensor.storage for tensor in self.tensors)


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name that the pickle may use."""

    path: str


def read_outline(stream: BinaryIO) -> Outline:
    """Read one pickle from where the stream is, and leave it behind its end.

    Raises:
      OutlineError: damaged, too long, or not the pickle of a state dict.
    """
    try:
        reads: Any = _ShortReads(stream)
        program = pickletools.genops(reads)
        instructions = list(itertools.islice(program, MAX_INSTRUCTIONS + 1))
    except OutlineError:
        raise
    except (ValueError, EOFError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise OutlineError(f"is damaged or cut short ({reason})") from error
    if len(instructions) > MAX_INSTRUCTIONS:
        raise OutlineError(
            f"has more than {MAX_INSTRUCTIONS} instructions, far beyond a state dict"
        )
    _check_names([str(arg) for op, arg, _ in instructions if op.name == "GLOBAL"])
    walk = _Walk()
    try:
        for op, arg, _ in instructions:
            walk.step(op.name, arg)
        return Outline(walk.pop(), walk.tensors)
    except OutlineError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise OutlineError(f"is damaged: {type(error).__name__} in it") from error


class _ShortReads:
    """A stream that hands out no long argument, whatever length it announces."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        if size > MAX_ARGUMENT:
            raise OutlineError(f"has a text of {size} bytes in it, far too long")
        return self._stream.read(size)

    def readline(self) -> bytes:
        return self._stream.readline(MAX_ARGUMENT)


def _check_names(names: Sequence[str]) -> None:
    """Refuse every name that a state dict does not need; GLOBAL is the one way in."""
    for spelled in names:
        name = spelled.replace(" ", ".")
        if name in _KNOWN:
            continue
        if any(other.startswith("torch.nn.") for other in names):
            _refuse("holds a whole pickled module, not a state dict")
        if name in _REASONS:
            _refuse(_REASONS[name])
        if name.startswith("torch.") and name.endswith("Storage"):
            _refuse(f"has an unknown storage type, {name[:60]!r}")
        _refuse(f"asks for {name[:60]!r}, which no state dict needs")


def _refuse(reason: str) -> NoReturn:
    raise OutlineError(f"{reason}; nothing of it was run; {RESAVE}")


class _Walk:
    """The stack of a pickle machine that only knows harmless instructions."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self._stack.pop()

    def step(self, name: str, arg: Any) -> None:
        """Follow one instruction."""
        stack = self._stack
        match name:
            case "PROTO":
                _check_protocol(arg)
            case "STOP":
                pass
            case "MARK":
                self._marked.append(stack)
                self._stack = []
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NEWTRUE": True, "NEWFALSE": False}.get(name))
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(arg)
            case "BINUNICODE" | "SHORT_BINSTRING":
                stack.append(arg)
            case "GLOBAL":
                stack.append(_Name(arg.replace(" ", ".")))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[arg] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[arg])
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(self._call(stack.pop(), arguments))
            case "BUILD":
                self._build(stack.pop())
            case _:
                self._container(name)

    def _container(self, name: str) -> None:
        """Follow an instruction that makes or fills a container."""
        empty = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
        if name in empty:
            self._stack.append(empty[name]())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            self._stack[-count:] = [tuple(self._stack[-count:])]
        elif name == "TUPLE":
            items = self._unmark()
            self._stack.append(tuple(items))
        elif name in ("APPEND", "APPENDS"):
            items = [self.pop()] if name == "APPEND" else self._unmark()
            self._expect(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._unmark() if name == "SETITEMS" else self._last_two()
            pairs = zip(items[::2], items[1::2], strict=True)
            self._expect(dict).update(_plain_dict(pairs))
        else:
            _refuse(f"has the instruction {name}, which torch.save does not write")

    def _last_two(self) -> list[Any]:
        value, key = self.pop(), self.pop()
        return [key, value]

    def _unmark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _expect(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise OutlineError(f"is damaged: no {kind.__name__} where one is filled")
        return self._stack[-1]

    def _build(self, state: Any) -> None:
        """Pass over the versions of the layers, an attribute of the state dict."""
        known = isinstance(state, dict) and state.keys() <= {_VERSIONS}
        if not known or not isinstance(self._stack[-1], dict):
            _refuse("sets attributes that a state dict does not have")

    def _call(self, function: Any, arguments: Any) -> Any:
        """Describe the result of one of the known functions."""
        name = function.path if isinstance(function, _Name) else None
        if name == _ORDERED_DICT:
            return _plain_dict(*arguments)
        if name == _PARAMETER and isinstance(arguments[0], Tensor):
            return arguments[0]
        if name in _TENSORS:
            tensor = describe_tensor(*arguments[:4])
            self.tensors.append(tensor)
            return tensor
        _refuse("calls something that is no part of a state dict")


def _check_protocol(protocol: int) -> None:
    if protocol != PROTOCOL:
        _refuse(f"is a pickle of protocol {protocol}, torch.save writes {PROTOCOL}")


def _plain_dict(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    """Make a dictionary; other keys could be chosen to make it endlessly slow."""
    made = {}
    for key, value in pairs:
        if type(key) is not str and not is_size(key):
            raise OutlineError("has a dictionary whose keys are no names")
        made[key] = value
    return made


def _storage(identity: Any) -> Storage:
    """Describe a storage from its persistent id."""
    if not isinstance(identity, tuple) or identity[0] != "storage":
        _refuse("holds a whole pickled module, not a state dict")
    kind, key, _, numel = identity[1:5]
    views = identity[5:]
    if not isinstance(kind, _Name) or kind.path not in STORAGES:
        _refuse("has a storage without a type")
    if not isinstance(key, str) or not is_size(numel) or any(views):
        raise OutlineError("is damaged: a storage without name or size")
    return Storage(key, numel, STORAGES[kind.path])
