"""Where compiled programs are kept on disk, for the next start."""

import contextlib
import hashlib
import logging
import os
import platform
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

_logger = logging.getLogger(__name__)

# Names of JAX.
_LEAST_SECONDS = "jax_persistent_cache_min_compile_time_secs"
_FOUND = "/jax/compilation_cache/cache_hits"


def use_compilation_cache(place: str | None = None) -> Path | None:
    """Keep compiled programs on disk, so that the next run starts quickly.

    JAX trusts what it finds there, so the folder must be the user's alone; one that
    others can write to, or that cannot be made, is not used (which is logged).
    A folder chosen for JAX itself (``JAX_COMPILATION_CACHE_DIR``) stays in force.

    Args:
      place: folder, ``"off"``, or None for ``$ADARTS_CACHE``, else
        ``~/.cache/adarts_jax/xla``.

    Returns:
      The folder in use; None for no cache.
    """
    place = place or os.environ.get("ADARTS_CACHE")
    if place == "off":
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    chosen_for_jax = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if place is None and chosen_for_jax:
        return Path(chosen_for_jax)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(place).expanduser() if place else base / "adarts_jax" / "xla"
    try:
        # Code for one processor may crash on another that mounts the same home.
        folder = root / _processor()
        for new in (root, folder):
            new.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_private(new)
    except OSError as error:
        _logger.warning(
            "compiled programs are not kept: %s (--compilation-cache chooses another "
            "folder)",
            error,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


@contextlib.contextmanager
def only_read() -> Iterator[list[str]]:
    """Let JAX's cache take nothing in; what is found there is noted in the list.

    A program from that cache must not be kept once more: jaxlib 0.10.2 writes such a
    one without its code, and it ends the run that reads it.
    """
    found: list[str] = []

    def note(event: str, **_: Any) -> None:
        if event == _FOUND:
            found.append(event)

    least = getattr(jax.config, _LEAST_SECONDS)
    jax.config.update(_LEAST_SECONDS, float("inf"))
    jax.monitoring.register_event_listener(note)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_listener(note)
        jax.config.update(_LEAST_SECONDS, least)


def check_private(folder: Path) -> None:
    """Check that what lies in a folder comes from the user.

    Raises:
      OSError: there is no such folder, or it is not the user's alone.
    """
    info = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    if info.st_mode & others or (hasattr(os, "getuid") and info.st_uid != os.getuid()):
        raise PermissionError(f"others may write to {str(folder)!r}; chmod 700 it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write to {str(folder)!r}")


def _processor() -> str:
    """Return a short name of the processor and its instruction set."""
    features = platform.processor()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        found = re.search(r"^(flags|Features)\s*:(.*)$", text, re.MULTILINE)
        features = found[2] if found else features
    except OSError:
        pass  # not Linux
    digest = hashlib.sha256(" ".join(sorted(features.split())).encode()).hexdigest()
    return f"{platform.machine()}-{digest[:8]}"
