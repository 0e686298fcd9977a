"""Where a program may be cut into parts that are compiled one by one.

A boundary is the identity, also under differentiation and ``vmap``, and costs nothing
in a program that is compiled as a whole. ``engine.cut`` cuts at it.
"""

from typing import TypeVar

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Tree = TypeVar("Tree")


def boundary(values: Tree) -> Tree:
    """Return the values; what comes before and after may become different programs.

    A cut must not run through a loop or a nested ``jit``: there it is ignored. The
    gradient has its own boundary, where it flows through.

    Args:
      values: arrays that meet here.
    """
    leaves, tree = jax.tree.flatten(values)
    return jax.tree.unflatten(tree, boundary_p.bind(*leaves))


boundary_p = Primitive("boundary")
boundary_p.multiple_results = True
boundary_p.def_impl(lambda *values: list(values))
boundary_p.def_abstract_eval(lambda *avals: list(avals))
mlir.register_lowering(boundary_p, lambda _, *values: list(values))


def _of_derivatives(derivatives: list) -> list:
    """Put one boundary through all derivatives but those that are known to be zero."""
    known = [d for d in derivatives if not isinstance(d, ad.Zero)]
    passed = iter(boundary_p.bind(*known) if known else ())
    return [d if isinstance(d, ad.Zero) else next(passed) for d in derivatives]


def _jvp(primals: tuple, tangents: tuple) -> tuple[list, list]:
    return boundary_p.bind(*primals), _of_derivatives(list(tangents))


def _transpose(cotangents: list, *_: object) -> list:
    return _of_derivatives(list(cotangents))


def _batch(values: tuple, axes: tuple) -> tuple[list, tuple]:
    return boundary_p.bind(*values), axes


ad.primitive_jvps[boundary_p] = _jvp
ad.primitive_transposes[boundary_p] = _transpose
batching.primitive_batchers[boundary_p] = _batch
