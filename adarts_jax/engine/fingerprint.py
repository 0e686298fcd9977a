"""A name for a function with everything that is built into it.

Two functions of the same fingerprint compile to the same program, without tracing them.
What a function calls is known by the source files of this package and of all modules
that are not installed; what it holds (closures, arguments of ``partial``, fields of
modules) by value. What is not understood has no fingerprint.
"""

import dataclasses
import functools
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_PACKAGE = Path(__file__).resolve().parent.parent
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
# Settings of JAX that change what is printed or kept, not what is compiled.
_IRRELEVANT = ("cache", "log", "debug", "traceback", "captured", "explain")


class NoFingerprintError(Exception):
    """Something of unknown content is built into a function."""


def fingerprint(*values: Any) -> str:
    """Return a name for values, among them functions, on this machine.

    Raises:
      NoFingerprintError: a value is of unknown content, or the code around it is not in
        a file (a notebook).
    """
    digest = hashlib.sha256()
    try:
        parts = [*_surroundings(), *_describe(values)]
    except (RecursionError, ValueError) as error:  # a cell may still be empty
        raise NoFingerprintError("a function that holds itself") from error
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()


def _surroundings() -> Iterator[str | bytes]:
    """Yield what every program depends on: sources, versions, devices, settings."""
    if not hasattr(sys.modules["__main__"], "__file__"):
        raise NoFingerprintError("interactive")
    for file in sorted({*_PACKAGE.rglob("*.py"), *_own_modules()}):
        yield str(file)
        yield file.read_bytes()
    yield sys.version
    yield from (version(name) for name in _LIBRARIES)
    for device in jax.devices():
        yield f"{device.platform} {device.device_kind} {device.id}"
    yield jax.devices()[0].client.platform_version
    yield os.environ.get("XLA_FLAGS", "")
    for name, value in sorted(jax.config.values.items()):
        if not any(word in name for word in _IRRELEVANT):
            # As an attribute it is that of the present context, if there can be one.
            yield f"{name}={getattr(jax.config, name, value)}"


def _own_modules() -> set[Path]:
    """Return the files of all modules that are neither installed nor Python's own."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = tuple({sysconfig.get_path(name) for name in names})
    found = (getattr(module, "__file__", None) for module in [*sys.modules.values()])
    files = {Path(file).resolve() for file in found if file}
    return {
        file
        for file in files
        # Some modules (`torch.classes`) name a file that does not exist.
        if file.suffix == ".py"
        and file.is_file()
        and not str(file).startswith(installed)
    }


def _describe(value: Any) -> Iterator[str | bytes]:
    """Yield the content of a value."""
    yield type(value).__qualname__
    match value:
        case None | bool() | int() | float() | str() | bytes() | np.dtype():
            yield repr(value)
        case type() | types.BuiltinFunctionType() | np.ufunc():
            yield f"{getattr(value, '__module__', '')}.{value.__qualname__}"
        case types.FunctionType():
            yield from _describe_function(value)
        case types.MethodType():
            yield from _describe((value.__self__, value.__func__))
        case functools.partial():
            yield from _describe((value.func, value.args, value.keywords))
        case np.ndarray() | np.generic() | jax.Array():
            yield from _describe_array(value)
        case jax.ShapeDtypeStruct():
            yield f"{value.shape} {value.dtype} {value.weak_type} {value.sharding}"
        case Mapping():
            for key in sorted(value, key=repr):
                yield from _describe(key)
                yield from _describe(value[key])
        case tuple() | list():
            yield str(len(value))
            for element in value:
                yield from _describe(element)
        case _ if dataclasses.is_dataclass(value):
            yield from _describe_fields(value)
        case _ if hasattr(value, "__wrapped__"):  # of jit, custom_jvp, ...
            yield from _describe(value.__wrapped__)
        case _:
            raise NoFingerprintError(f"{type(value)}")


def _describe_function(function: types.FunctionType) -> Iterator[str | bytes]:
    code = function.__code__
    yield f"{function.__module__}.{function.__qualname__}:{code.co_firstlineno}"
    yield code.co_code
    yield from _describe((function.__defaults__, function.__kwdefaults__))
    for cell in function.__closure__ or ():
        yield from _describe(cell.cell_contents)


def _describe_array(array: Any) -> Iterator[str | bytes]:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    yield f"{array.shape} {array.dtype}"
    yield np.asarray(array).tobytes()


def _describe_fields(value: Any) -> Iterator[str | bytes]:
    yield f"{type(value).__module__}.{type(value).__qualname__}"
    for field in dataclasses.fields(value):
        if field.name != "parent":  # of a Flax module: what it is part of
            yield field.name
            yield from _describe(getattr(value, field.name))
