"""Cut the equations of a traced function into groups, at its boundaries.

A group reads what earlier ones made; `engine.sections` makes functions of them.
"""

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, TypeGuard

from jax.extend import core
from jax.interpreters import partial_eval

from adarts_jax.nn.boundary import boundary_p

Atom = core.Var | core.Literal
Equations = list[core.JaxprEqn]

# Parts cost time in every call, so they must save this share of all equations.
_LEAST_REPEATED = 0.2


class Pieces(NamedTuple):
    """A function in groups of equations.

    Attributes:
      groups: in order.
      results: of the function, as the groups name them.
    """

    groups: list[Equations]
    results: list[Atom]


def cut(jaxpr: core.Jaxpr) -> Pieces:
    """Divide a function at its boundaries, which disappear; leave out dead equations.

    A function without boundaries, or with effects, is a single group.
    """
    used = [True] * len(jaxpr.outvars)
    live, _ = partial_eval.dce_jaxpr(jaxpr, used, instantiate=True)
    groups: list[Equations] = [[]]
    same: dict[core.Var, Atom] = {}  # what lies behind a boundary: what lies before
    for equation in live.eqns:
        invars = [_resolve(x, same) for x in equation.invars]
        if equation.primitive is not boundary_p:
            groups[-1].append(equation.replace(invars=invars))
            continue
        same |= dict(zip(equation.outvars, invars, strict=True))
        if groups[-1] and not jaxpr.effects:
            groups.append([])
    results = [_resolve(x, same) for x in live.outvars]
    return Pieces([group for group in groups if group], results)


def has_repeats(pieces: Pieces) -> bool:
    """Return whether enough of the groups are like others to compile them once."""
    sizes = {_shapes(group): len(group) for group in pieces.groups}
    total = sum(map(len, pieces.groups))
    return total - sum(sizes.values()) >= _LEAST_REPEATED * total


def made(equations: Equations) -> dict[core.Var, None]:
    """Return what the equations make, in order."""
    results = (x for equation in equations for x in equation.outvars)
    return dict.fromkeys(x for x in results if not isinstance(x, core.DropVar))


def read(equations: Equations) -> dict[core.Var, None]:
    """Return what the equations read and do not make, in order."""
    own = made(equations)
    arguments = (x for equation in equations for x in equation.invars)
    return dict.fromkeys(x for x in arguments if is_variable(x) and x not in own)


def is_variable(x: Atom) -> TypeGuard[core.Var]:
    """Return whether an operand is no literal."""
    return not isinstance(x, core.Literal)


def _resolve(x: Any, same: Mapping[core.Var, Atom]) -> Atom:
    return same.get(x, x) if is_variable(x) else x


def _shapes(equations: Equations) -> Hashable:
    return tuple(
        (equation.primitive.name, *(str(x.aval) for x in equation.outvars))
        for equation in equations
    )
