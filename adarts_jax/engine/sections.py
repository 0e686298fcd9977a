"""The pieces of a function as functions of their own.

A section takes values that the function was given or that earlier sections made, and
gives what later ones need.
"""

import collections
from collections.abc import Container, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array

from adarts_jax.engine.cut import Atom, Equations, Pieces, is_variable, made, read

Traced = Any  # jax.stages.Traced
Lowered = Any  # jax.stages.Lowered


class Section(NamedTuple):
    """One part; values are numbered through the whole function.

    Attributes:
      jaxpr: from arrays to arrays.
      takes: numbers of its arguments.
      gives: numbers of its results.
      forgets: numbers of values that no later section needs, nor the result.
      donates: positions in ``takes`` whose memory becomes that of results.
    """

    jaxpr: core.ClosedJaxpr
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    forgets: tuple[int, ...]
    donates: tuple[int, ...] = ()

    def lower(self) -> Lowered:
        """Lower it for the compiler."""
        function = core.jaxpr_as_fun(self.jaxpr)
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in self.jaxpr.in_avals]
        return jax.jit(function, donate_argnums=self.donates).lower(*shapes)


def make_sections(
    traced: Traced, pieces: Pieces
) -> tuple[list[Section], list[int | Array]]:
    """Number the values that pass between the groups.

    Returns:
      A section per group, and every leaf of the result: its number, or itself.
    """
    closed, (groups, ends) = traced.jaxpr, pieces
    constants = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    variables = [*closed.jaxpr.invars, *(x for g in groups for x in made(g))]
    numbers = {x: n for n, x in enumerate(dict.fromkeys(variables))}
    debug_info = closed.jaxpr.debug_info.with_unknown_names()
    needed = {numbers[x] for x in filter(is_variable, ends) if x in numbers}
    sections = []
    for group in reversed(groups):
        sections.insert(0, _section(group, debug_info, numbers, needed, constants))
        needed = needed | set(sections[0].takes)
    sections[-1] = _donate(sections[-1], traced)
    results = [_number_of(x, numbers, constants) for x in ends]
    return sections, results


def _number_of(
    x: Atom, numbers: Mapping[core.Var, int], constants: Mapping[core.Var, Any]
) -> int | Array:
    """Return the number of a value, or the value itself if it is known."""
    if isinstance(x, core.Literal):
        return jnp.asarray(x.val)
    return numbers[x] if x in numbers else jnp.asarray(constants[x])


def _section(
    group: Equations,
    debug_info: Any,
    numbers: Mapping[core.Var, int],
    needed: Container[int],
    constants: Mapping[core.Var, Any],
) -> Section:
    """Make a function of a group.

    Args:
      group: its equations.
      debug_info: of the whole function.
      numbers: of all values that are no constants.
      needed: numbers of values that later sections need, or the result.
      constants: all of them.
    """
    known = [x for x in read(group) if x in constants]
    takes = [x for x in read(group) if x in numbers]
    gives = [x for x in made(group) if numbers[x] in needed]
    jaxpr = core.Jaxpr(known, takes, gives, group, debug_info=debug_info)
    taken = tuple(numbers[x] for x in takes)
    return Section(
        core.ClosedJaxpr(jaxpr, [constants[x] for x in known]),
        taken,
        tuple(numbers[x] for x in gives),
        tuple(number for number in taken if number not in needed),
    )


def _donate(section: Section, traced: Traced) -> Section:
    """Give away the arguments that the caller gave away, where a result is alike."""
    infos = jax.tree.leaves(traced.args_info)
    free = {n for n, info in enumerate(infos) if info.donated}
    kinds = [(a.shape, a.dtype) for a in section.jaxpr.in_avals]
    wanted = collections.Counter((a.shape, a.dtype) for a in section.jaxpr.out_avals)
    donates = []
    for position, number in enumerate(section.takes):
        if number in free and number in section.forgets and wanted[kinds[position]]:
            wanted[kinds[position]] -= 1
            donates.append(position)
    return section._replace(donates=tuple(donates))
