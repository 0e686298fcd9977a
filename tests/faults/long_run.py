"""A run of many epochs that reports, as JSON, what each left behind in the process.

python long_run.py search|retrain ARGUMENT...
"""

import json
import re
import sys
from pathlib import Path

import jax

from adarts_jax import search
from adarts_jax.engine.metrics import MetricLog
from train import retrain

COMPILED = "/jax/core/compile/backend_compile_duration"


def resident_bytes() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return 1000 * int(found[1])


def main(program: str, *argv: str) -> int:
    """Run a program; print resident bytes and programs compiled, epoch by epoch."""
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **about: compiled.extend([event] * (event == COMPILED))
    )
    seen: list[tuple[int, int]] = []
    append = MetricLog.append

    def note(log: MetricLog, record) -> None:
        append(log, record)
        seen.append((resident_bytes(), len(compiled)))

    MetricLog.append = note
    status = {"search": search.main, "retrain": retrain.main}[program](argv)
    sys.stdout.write(json.dumps(seen) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
