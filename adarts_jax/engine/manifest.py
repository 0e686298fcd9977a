"""``manifest.json``: what a result depends on besides the config. No personal data."""

import getpass
import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adarts_jax.engine import devices, files
from adarts_jax.errors import UserError, format_advice

FORMAT = "adarts-manifest/1"
PACKAGES = (
    *("adarts-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    *("jax-cuda12-plugin", "scikit-learn", "tensorflow-datasets", "pillow"),
)


def add_session(
    path: Path,
    *,
    about: Mapping[str, Any],
    command: str,
    first_step: int,
    details: Mapping[str, Any],
) -> None:
    """Record that a process works on a run, from its first step on.

    Args:
      path: the manifest; made, or extended when a run is resumed.
      about: facts of the whole run, such as seed and data fingerprint.
      command: the command line.
      first_step: 0, or the step from which the run is resumed.
      details: facts of this process, such as compile seconds.
    """
    manifest = read(path) or {"format": FORMAT, **about, "sessions": []}
    session = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "first_step": first_step,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": _versions(),
        "device": devices.describe_devices(),
        **details,
    }
    manifest["sessions"].append(session)
    files.write_json(path, _redact(manifest))


def read(path: Path) -> dict[str, Any] | None:
    """Return a manifest, None where there is none.

    Raises:
      UserError: it is damaged, or of another format.
    """
    if not path.is_file():
        return None
    way_out = "delete it to continue without the history of the run"
    manifest = files.read_json(path, way_out)
    found = manifest.get("format")
    if found != FORMAT:
        raise UserError(
            f"{str(path)!r} has format {found!r:.60}, this version reads {FORMAT!r}: "
            f"{format_advice(found, FORMAT)}"
        )
    if not isinstance(manifest.get("sessions"), list):
        raise UserError(f"{str(path)!r} lists no sessions; {way_out}")
    return manifest


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_revision() -> str | None:
    """Return the commit of the checkout this package lies in, if it does."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _redact(value: Any) -> Any:
    """Replace the home folder and the user's name in all texts."""
    if isinstance(value, Mapping):
        return {key: _redact(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_redact(member) for member in value]
    if not isinstance(value, str):
        return value
    text = value.replace(str(Path.home()), "~")
    name = _user_name()
    return re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", "USER", text)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for this user
        return "root"
