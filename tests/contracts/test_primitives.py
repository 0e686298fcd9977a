"""Promises of every primitive, alone, in stacks, and inside a mixed operation."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarts_jax.edges.mixed_op import MixedOp, normalized_columns
from adarts_jax.nn.primitives import (
    PRIMITIVES,
    OperationStack,
    SinglePrimitive,
    find_primitive,
    group_by_family,
)

CHANNELS, SIDE = 4, 6
CASES = list(itertools.product(PRIMITIVES, (1, 2), (False, True)))

# One family with all of its sizes; "skip" has weights at stride 2 only.
FAMILIES = {
    stack.family: stack.sizes
    for stack in group_by_family(list(PRIMITIVES))
    if stack.family not in ("none", "conv_7x1_1x7")
}


def draw(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.RandomState(seed).standard_normal(shape), jnp.float32)


def randomize(tree: Any, seed: int = 1) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(
        [0.3 * draw(seed + i, *leaf.shape) for i, leaf in enumerate(leaves)]
    )


def assert_near(got: Any, want: Any) -> None:
    assert got.shape == want.shape
    scale = np.abs(want).max(initial=1e-6)
    assert np.abs(np.asarray(got) - np.asarray(want)).max(initial=0) <= 2e-5 * scale


def shapes_of(module: Any, *inputs: jax.Array) -> Any:
    """Return the shapes of a module's variables."""
    return jax.eval_shape(
        lambda key: module.init(key, *inputs, train=False), jax.random.key(0)
    )


def params_of(module: Any, *inputs: jax.Array) -> Any:
    return randomize(shapes_of(module, *inputs).get("params", {}))


def apply(module: Any, params: Any, *inputs: jax.Array) -> tuple[jax.Array, Any]:
    """Apply a module with batch statistics."""
    shapes = shapes_of(module, *inputs).get("batch_stats", {})
    statistics = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    variables = {"params": params, "batch_stats": statistics}
    return module.apply(variables, *inputs, train=True, mutable=["batch_stats"])


forward = jax.jit(apply, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def value_and_vjp(
    module: Any, params: Any, x: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    y, backward = jax.vjp(lambda x: apply(module, params, x)[0], x)
    return y, backward(cotangent)[0]


@pytest.mark.parametrize(("name", "stride", "mixed"), CASES)
def test_contract(name, stride, mixed):
    module: Any = SinglePrimitive(name, CHANNELS, stride, mixed)
    x = draw(0, 2, SIDE, SIDE, CHANNELS)
    params, side = params_of(module, x), -(-SIDE // stride)
    cotangent = draw(1, 2, side, side, CHANNELS)

    @jax.jit
    def run(params, x):
        of_module = functools.partial(apply, module)
        y, backward, updates = jax.vjp(of_module, params, x, has_aux=True)
        return y, updates, backward(cotangent)

    y, updates, gradients = run(params, x)

    # shape and dtype, also while evaluating
    evaluated, _ = jax.eval_shape(
        lambda key: module.init_with_output(key, x, train=False), jax.random.key(0)
    )
    for out in (y, evaluated):
        assert out.shape == (2, side, side, CHANNELS)
        assert out.dtype == jnp.float32
    # gradients are finite, and not zero unless the operation is
    for gradient in jax.tree.leaves(gradients):
        assert gradient.dtype == jnp.float32
        assert jnp.isfinite(gradient).all()
        assert gradient.any() == (name != "none")
    # the same without jit
    eager, eager_updates = apply(module, params, x)
    assert_near(y, eager)
    jax.tree.map(assert_near, updates, eager_updates)
    # other values need no other program
    run(jax.tree.map(jnp.negative, params), x + 1)
    assert run._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", PRIMITIVES)
def test_bare_only_outside_of_a_mixed_operation(name, stride):
    """Pools are normalised inside; nothing has weights of a batch norm there."""
    x = jnp.zeros((2, SIDE, SIDE, CHANNELS))
    shapes = [
        shapes_of(SinglePrimitive(name, CHANNELS, stride, mixed), x)
        for mixed in (False, True)
    ]
    alone, inside = ("batch_stats" in shape for shape in shapes)
    bare = "pool" in name
    identity = name == "none" or (name == "skip_connect" and stride == 1)
    assert (alone, inside) == (not (bare or identity), not identity)
    names = [str(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes[1])]
    assert not any("scale" in name or "bias" in name for name in names)


def stack_slice(tree: Any, *, op: slice, edge: slice, sizes: tuple[int, ...]) -> Any:
    """Cut some operations and edges out of the parameters of a stack."""
    found = {}
    for name, child in tree.items():
        if isinstance(child, dict):
            found[name] = stack_slice(child, op=op, edge=edge, sizes=sizes)
        elif name == "kernel":  # (op, edge, in, out); a skip has one op
            found[name] = child[op if child.shape[0] > 1 else slice(None), edge]
        else:
            size = int(name.split("x")[-1])
            channels = slice(edge.start * CHANNELS, edge.stop * CHANNELS)
            if size in sizes:
                found[name] = child[:, :, channels]
    return found


def make_stack(family: str, sizes: tuple[int, ...], stride: int, edges: int) -> Any:
    return OperationStack(family, sizes, CHANNELS, stride, edges, affine=False)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_stack_of_edges_is_its_edges(family, stride):
    sizes, edges, side = FAMILIES[family], 3, -(-SIDE // stride)
    x = draw(0, 1, 2, SIDE, SIDE, edges * CHANNELS)
    cotangent = draw(1, len(sizes), 2, side, side, edges * CHANNELS)
    module = make_stack(family, sizes, stride, edges)
    params, results = params_of(module, x), []
    for e in range(edges):
        mine = stack_slice(
            params, op=slice(0, len(sizes)), edge=slice(e, e + 1), sizes=sizes
        )
        channels = slice(e * CHANNELS, (e + 1) * CHANNELS)
        alone = make_stack(family, sizes, stride, 1)
        results.append(
            value_and_vjp(alone, mine, x[..., channels], cotangent[..., channels])
        )
    together = value_and_vjp(module, params, x, cotangent)
    for ours, parts in zip(together, zip(*results, strict=True), strict=True):
        assert_near(ours, jnp.concatenate(parts, axis=-1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_stack_of_operations_is_its_operations(family, stride):
    sizes, side = FAMILIES[family], -(-SIDE // stride)
    x = draw(0, 1, 2, SIDE, SIDE, CHANNELS)
    cotangent = draw(1, len(sizes), 2, side, side, CHANNELS)
    module = make_stack(family, sizes, stride, 1)
    params = params_of(module, x)
    y, gradient = value_and_vjp(module, params, x, cotangent)
    total = jnp.zeros_like(gradient)
    for o, size in enumerate(sizes):
        op = slice(o, o + 1)
        mine = stack_slice(params, op=op, edge=slice(0, 1), sizes=(size,))
        alone = make_stack(family, (size,), stride, 1)
        part, share = value_and_vjp(alone, mine, x, cotangent[op])
        assert_near(y[op], part)
        total += share
    assert_near(gradient, total)


# another order and fewer than any method has, and one that has nothing to normalise
LISTS = [
    ("dil_conv_5x5", "none", "avg_pool_3x3", "sep_conv_3x3", "skip_connect"),
    ("max_pool_5x5", "sep_conv_7x7", "dil_conv_3x3", "max_pool_3x3"),
    ("skip_connect", "none"),
]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("names", LISTS)
def test_mixed_operation_is_the_weighted_sum_of_primitives(names, stride):
    edges = 2
    module: Any = MixedOp(names, edges, stride)
    x, weights = draw(0, 2, SIDE, SIDE, edges * CHANNELS), draw(1, edges, len(names))
    params = params_of(module, x, weights)
    ours, _ = forward(module, params, x, weights)
    for e in range(edges):
        channels, total = slice(e * CHANNELS, (e + 1) * CHANNELS), jnp.zeros(())
        for stack in group_by_family(names):
            for o, column in enumerate(stack.columns):
                mine = stack_slice(
                    params.get(stack.family, {}),
                    op=slice(o, o + 1),
                    edge=slice(e, e + 1),
                    sizes=(stack.sizes[o],),
                )
                alone = SinglePrimitive(names[column], CHANNELS, stride, mixed=True)
                y, _ = forward(alone, {"op": mine}, x[..., channels])
                total += weights[e, column] * y
        assert_near(ours[..., channels], total)


def test_normalized_columns_leave_out_zeros_and_identities():
    names = LISTS[0]
    assert [names[c] for c in normalized_columns(names, 1)] == [
        "dil_conv_5x5",
        "avg_pool_3x3",
        "sep_conv_3x3",
    ]
    assert {names[c] for c in normalized_columns(names, 2)} == {*names} - {"none"}


def test_unknown_primitive_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'sep_conv_3x3'"):
        find_primitive("sep_conv_3x4")


def test_the_table_is_read_only():
    with pytest.raises(TypeError):
        PRIMITIVES["none"] = PRIMITIVES["skip_connect"]  # pyright: ignore[reportIndexIssue]
