"""The same numbers from every run of a seed, on a GPU too (``deterministic = true``).

A CPU computes the same numbers every time anyway. A GPU needs a flag of XLA: some of
its kernels add up in the order in which threads happen to finish, and others are
chosen by measuring them. XLA reads its flags once, when JAX starts its device, and ends
the whole process at one that it does not know.
"""

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Callable, MutableMapping

from adarts_jax.errors import UserError

VARIABLE = "XLA_FLAGS"
NAME = "--xla_gpu_deterministic_ops"
_TRUE, _FALSE = ("", "true", "1"), ("false", "0")
_PROBE_SECONDS = 120.0

_logger = logging.getLogger(__name__)


def require_determinism(
    environ: MutableMapping[str, str] = os.environ,
    *,
    running: Callable[[], str | None] | None = None,
    knows: Callable[[str], bool] | None = None,
) -> None:
    """Make a GPU compute the same numbers in every run of the same program.

    Adds a flag to ``XLA_FLAGS``, behind those that are there, once. Nothing is added
    where only a CPU is in use, or where XLA does not know the flag, which is logged.
    Results still depend on device, number of devices and version of JAX. Kernels are
    slower: those that were measured to be the fastest are no longer chosen.

    Args:
      environ: the environment to change.
      running: platform of the device that JAX has started, None for none yet.
      knows: whether the installed XLA knows a flag.

    Raises:
      UserError: ``XLA_FLAGS`` says the contrary, or a GPU is in use already.
    """
    flags = environ.get(VARIABLE, "").split()
    given = [flag.partition("=")[2] for flag in flags if flag.partition("=")[0] == NAME]
    if given and given[-1].lower() in _FALSE:
        raise UserError(
            f"deterministic = true, but {VARIABLE} says {NAME}={given[-1]}; take that "
            "flag out, or leave deterministic out"
        )
    platform = (running or _running_platform)()
    is_elsewhere = platform not in (None, "gpu")  # CPUs and TPUs need nothing
    if given or is_elsewhere or environ.get("JAX_PLATFORMS") == "cpu":
        return
    if platform is not None:
        raise UserError(
            f"deterministic = true comes too late: JAX has started its {platform} "
            f"already; begin a new process, or restart the notebook, with {VARIABLE}="
            f"{NAME}=true in the environment"
        )
    flag = f"{NAME}=true"
    if not (knows or is_known)(flag):
        _logger.warning(
            "this version of XLA does not know %s: runs on a GPU may differ", flag
        )
        return
    environ[VARIABLE] = " ".join([*flags, flag])


@functools.cache
def is_known(flag: str) -> bool:
    """Return whether the installed XLA knows a flag; asks a process of its own."""
    alone = {**os.environ, VARIABLE: flag, "JAX_PLATFORMS": "cpu"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env=alone,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _running_platform() -> str | None:
    """Return the platform of JAX's device, None if it has not been started."""
    import jax
    from jax._src import xla_bridge

    # There is no public way to ask without starting it.
    has_started = getattr(xla_bridge, "backends_are_initialized", lambda: False)()
    return jax.default_backend() if has_started else None
