"""Result files: one JSON object per benchmark and setting.

All benchmarks write the same: ``{"benchmark": …, "setting": {…}, "machine": {…}, …,
"implementations": {row: numbers}}``.
"""

import dataclasses
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.timing import Record

RESULTS = Path(__file__).resolve().parent / "results"


def describe(
    benchmark: str,
    name: str,
    setting: Any,
    rows: Mapping[str, Record],
    *,
    cores: int | None = None,
) -> Record:
    """Return the content of a result file.

    Args:
      benchmark: module below ``benchmarks``.
      name: of the setting.
      setting: a dataclass instance.
      rows: what was measured, per implementation.
      cores: cores per worker; None for all.
    """
    command = ["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]]
    return {
        "benchmark": benchmark,
        "setting": {"name": name} | dataclasses.asdict(setting),
        "command": shlex.join(command),
        "date": time.strftime("%Y-%m-%d"),
        "revision": revision(),
        "machine": machine_record(),
        "cores_per_worker": cores,
        "implementations": dict(rows),
    }


def write(folder: Path, result: Record) -> Path:
    """Write a result as readable JSON, named after its benchmark and setting."""
    cores = f"_{result['cores_per_worker']}core" if result["cores_per_worker"] else ""
    name = f"{result['benchmark']}_{result['setting']['name']}{cores}.json"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(result, indent=2) + "\n")
    return folder / name


def machine_record() -> Record:
    """Describe the machine; nothing about its user."""
    cpu_info = Path("/proc/cpuinfo").read_text().splitlines()
    names = [
        line.partition(":")[2].strip() for line in cpu_info if "model name" in line
    ]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def revision() -> str:
    """Return the git revision measured, ``-dirty`` if the library has local changes."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
