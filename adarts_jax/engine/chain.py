"""A compiled function in parts: sections that run one after the other.

XLA's CPU compiler takes longer than in proportion to the size of a program, and reading
a compiled one from the cache takes the square of it. So the cells of a network become
programs of their own: equal ones are compiled once, different ones side by side
(docs/performance.md).
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, PyTree

from adarts_jax.engine.sections import Section, Traced

Compiled = Any  # jax.stages.Compiled


class Link(NamedTuple):
    """A call of a part; values are numbered through the whole function.

    Attributes:
      program: position among the programs.
      takes: numbers of its arguments.
      gives: numbers of its results.
      forgets: numbers of values that nobody needs afterwards.
    """

    program: int
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    forgets: tuple[int, ...]


class Memory(NamedTuple):
    """Bytes of a function, named as in XLA's account of a program.

    Attributes:
      argument_size_in_bytes: of the arguments.
      output_size_in_bytes: of the results.
      temp_size_in_bytes: of everything else, at the moment when all is most.
      alias_size_in_bytes: of results that take the place of arguments.
    """

    argument_size_in_bytes: int
    output_size_in_bytes: int
    temp_size_in_bytes: int
    alias_size_in_bytes: int


@dataclasses.dataclass(frozen=True)
class Chain:
    """Compiled parts; called and asked like a ``jax.stages.Compiled``.

    Attributes:
      links: in order.
      programs: different ones.
      in_tree: structure of the arguments; their leaves are the first values.
      results: every leaf of the result: its number, or itself.
      out_tree: structure of the result.
      memory: of all of it.
    """

    links: tuple[Link, ...]
    programs: tuple[Compiled, ...]
    in_tree: Any
    results: tuple[int | Array, ...]
    out_tree: Any
    memory: Memory

    def __call__(self, *args: PyTree) -> PyTree:
        """Call the parts in order.

        Raises:
          TypeError: the arguments are not of the structure that was compiled.
        """
        leaves, tree = jax.tree.flatten((args, {}))
        if tree != self.in_tree:
            raise TypeError(
                f"compiled for arguments {self.in_tree}, called with {tree}"
            )
        values = dict(enumerate(leaves))
        del leaves
        for link in self.links:
            program = self.programs[link.program]
            found = program(*[values[number] for number in link.takes])
            for number in link.forgets:
                del values[number]
            values.update(zip(link.gives, found, strict=True))
        return jax.tree.unflatten(self.out_tree, self._own_results(values))

    def _own_results(self, values: Mapping[int, Array]) -> Iterator[Array]:
        """Yield arrays that nobody else holds: the caller may give each away."""
        held = set(range(self.in_tree.num_leaves))
        for result in self.results:
            if not isinstance(result, int):
                yield result.copy()
            elif result in held:
                yield values[result].copy()
            else:
                held.add(result)
                yield values[result]

    def cost_analysis(self) -> dict[str, float]:
        """Return the sum of what XLA counts in every part."""
        counts = [program.cost_analysis() or {} for program in self.programs]
        total: dict[str, float] = {}
        for link in self.links:
            for name, count in counts[link.program].items():
                total[name] = total.get(name, 0.0) + count
        return total

    def memory_analysis(self) -> Memory:
        """Return what the parts need, and what they keep for each other."""
        return self.memory


def make_chain(
    traced: Traced,
    sections: Sequence[Section],
    results: Sequence[int | Array],
    compiled: Sequence[Compiled],
) -> Chain:
    """Put compiled sections together.

    Args:
      traced: the function.
      sections: of it, in order.
      results: of it, see ``Chain``.
      compiled: of every section; the same object for equal ones.
    """
    programs = list({id(program): program for program in compiled}.values())
    places = {id(program): place for place, program in enumerate(programs)}
    return Chain(
        tuple(
            Link(places[id(program)], section.takes, section.gives, section.forgets)
            for section, program in zip(sections, compiled, strict=True)
        ),
        tuple(programs),
        traced.in_tree,
        tuple(results),
        traced.out_tree,
        _count(sections, compiled, traced.in_tree.num_leaves),
    )


def _count(
    sections: Sequence[Section], compiled: Sequence[Compiled], num_arguments: int
) -> Memory:
    arguments: dict[int, int] = {}
    kept: dict[int, int] = {}
    most, alias = 0, 0
    for section, program in zip(sections, compiled, strict=True):
        own = program.memory_analysis()
        taken = zip(section.takes, map(_bytes, section.jaxpr.in_avals), strict=True)
        given = zip(section.gives, map(_bytes, section.jaxpr.out_avals), strict=True)
        arguments |= {number: size for number, size in taken if number < num_arguments}
        kept |= dict(given)
        most = max(most, sum(kept.values()) + own.temp_size_in_bytes)
        alias += own.alias_size_in_bytes
        for number in section.forgets:
            kept.pop(number, None)
    results = sum(kept.values())
    return Memory(sum(arguments.values()), results, most - results, alias)


def _bytes(aval: Any) -> int:
    return aval.size * aval.dtype.itemsize
