"""Count the kernels of a program for a GPU, and the bytes they move."""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|bf16|[a-z]\d+)\[([\d,]*)\]")
# What costs no launch: names for parts of memory, and the loops themselves.
_NAMES = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant"}
_FREE = _NAMES | {"while", "call", "conditional"}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
      kind: "loop", "reduce", "product", "library", or what XLA calls it.
      bytes: of its operands and results, each read or written once.
      source: name of the traced operation that it ends in.
    """

    kind: str
    bytes: int
    source: str


def innermost(program: str) -> tuple[Kernel, ...]:
    """Return the kernels of a program's innermost loop: one phase of a step.

    The body of that loop is the computation with the most kernels of all that are not
    kernels themselves.

    Args:
      program: scheduled, as ``compiled.as_text()`` writes it.
    """
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in program.splitlines():
        if found := _COMPUTATION.match(line):
            lines = parts.setdefault(found[1], [])
        else:
            lines.append(line.strip())
    fused = set(re.findall(r"\bcalls=%?([\w.\-]+)", program))
    fused |= set(re.findall(r"\bto_apply=%?([\w.\-]+)", program))
    return max(
        (tuple(_kernels(lines)) for name, lines in parts.items() if name not in fused),
        key=len,
        default=(),
    )


def _kernels(lines: list[str]) -> Iterator[Kernel]:
    types: dict[str, str] = {}
    for line in lines:
        if not (found := _INSTRUCTION.match(line)):
            continue
        name, result, operation, rest = found.groups()
        types[name] = result
        if operation in _FREE:
            continue
        operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
        moved = _bytes(result) + sum(_bytes(types.get(each, "")) for each in operands)
        source = re.search(r'op_name="([^"]*)"', line)
        kind = _kind(operation, line)
        yield Kernel(kind, moved, source[1] if source else "")


def _kind(operation: str, line: str) -> str:
    if operation == "custom-call":
        return "library"
    for mark, kind in (("kLoop", "loop"), ("kInput", "reduce"), ("kCustom", "product")):
        if operation == "fusion" and f"kind={mark}" in line:
            return kind
    return operation


def _bytes(types: str) -> int:
    total = 0
    for name, shape in _ARRAY.findall(types):
        bits = _BITS.get(name) or int(name[1:])
        total += math.prod(int(n) for n in shape.split(",") if n) * bits // 8
    return total
