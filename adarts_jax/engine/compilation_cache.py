"""Where compiled programs are kept on disk, for the next start."""

import hashlib
import logging
import os
import platform
import re
import stat
from pathlib import Path

import jax

_logger = logging.getLogger(__name__)


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
