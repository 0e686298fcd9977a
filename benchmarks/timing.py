"""Time several implementations side by side: separate processes, one at a time.

OpenMP threads of PyTorch spin while they wait, and two programs that share cores make
each other look slow. So every implementation lives in its own worker process that
builds, warms up and then sleeps on its standard input; the parent lets the workers run
in turn, and sets a round aside if anybody but the measured worker used the processor.

Protocol, one JSON object per line: the worker says what its set-up cost, the parent
sends ``{"program": name, "repetitions": n}``, the worker answers with the seconds of
each repetition. Closing its standard input ends the worker. Linux only (``/proc``).
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Threads of a worker that has just finished may spin for a few milliseconds more.
SETTLE_SECONDS = 0.2
# Cores in use by others above which a round does not count as quiet.
QUIET_CORES = 0.15
Record = dict[str, Any]


class CannotRun(Exception):  # noqa: N818 - no error: the row is left out
    """This machine cannot run an implementation; says why in one line."""


# --- In the worker ---------------------------------------------------------------


@contextlib.contextmanager
def private_stdout() -> Iterator[TextIO]:
    """Yield a stream to the parent; whatever libraries print goes to stderr."""
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        yield replies


def peak_mib() -> float:
    """Largest resident memory of this process since the last reset, in MiB."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def reset_peak() -> None:
    """Start a new memory peak, so that set-up and steps are told apart."""
    Path("/proc/self/clear_refs").write_text("5")


def timed(action: Callable[[], object]) -> float:
    """Run an action that waits for its own result; return the wall-clock seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def serve(
    setup: Record,
    programs: Mapping[str, Callable[[], object]],
    replies: TextIO,
    device_peak_mib: Callable[[], float | None] = lambda: None,
) -> None:
    """Answer the parent until it closes our standard input.

    Args:
      setup: what building and compiling cost, versions, device; sent first.
      programs: name to one blocking repetition; each is run once beforehand to warm up.
      replies: stream from ``private_stdout``.
      device_peak_mib: peak of an accelerator's memory so far; None without one.
    """
    warm_up = {name: timed(action) for name, action in programs.items()}
    setup = setup | {"warm_up_seconds": warm_up, "setup_peak_mib": peak_mib()}
    print(json.dumps(setup), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        action = programs[request["program"]]
        reset_peak()
        cpu = time.process_time()
        seconds = [timed(action) for _ in range(request["repetitions"])]
        reply = {
            "seconds": seconds,
            "cpu_seconds": time.process_time() - cpu,
            "peak_mib": peak_mib(),
            "device_peak_mib": device_peak_mib(),
        }
        print(json.dumps(reply), file=replies, flush=True)


# --- In the parent ---------------------------------------------------------------


class Worker:
    """A process that builds one implementation and then waits to be asked."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """Start the process and wait until it is built and warm.

        Raises:
          CannotRun: if it says so.
          RuntimeError: if it ends before it is ready; its stderr was already shown.
        """
        self.name = name
        start, machine = time.perf_counter(), machine_cpu_seconds()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ) | dict(environment),
        )
        self.setup = self._read()
        if "cannot_run" in self.setup:
            self.close()
            raise CannotRun(self.setup["cannot_run"])
        elsewhere = machine_cpu_seconds() - machine - self.cpu_seconds()
        self.setup["cores_used_elsewhere"] = max(0.0, elsewhere) / (
            time.perf_counter() - start
        )

    def run(self, program: str, repetitions: int) -> Record:
        """Let the worker repeat one program; return its reply."""
        request = {"program": program, "repetitions": repetitions}
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._read()

    def cpu_seconds(self) -> float:
        """Processor seconds the worker has used so far, all threads."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / TICKS_PER_SECOND

    def close(self) -> None:
        """Let the worker end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _read(self) -> Record:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise RuntimeError(f"worker {self.name!r} ended with status {status}")
        return json.loads(line)


def machine_cpu_seconds() -> float:
    """Busy processor seconds of the whole machine since boot."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, *rest = map(int, fields)
    return (user + nice + system + sum(rest[:3])) / TICKS_PER_SECOND


def wait_until_quiet(patience_seconds: float) -> bool:
    """Wait for others to leave the processor alone; return whether they did."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        before = machine_cpu_seconds()
        time.sleep(1.0)
        if machine_cpu_seconds() - before < QUIET_CORES:
            return True
    return False


def _one_round(
    worker: Worker, others: Sequence[Worker], program: str, repetitions: int
) -> Record:
    """Run one worker and note how much processor everybody else took meanwhile."""
    time.sleep(SETTLE_SECONDS)
    machine, own = machine_cpu_seconds(), worker.cpu_seconds()
    idle = [other.cpu_seconds() for other in others]
    start = time.perf_counter()
    reply = worker.run(program, repetitions)
    elapsed = time.perf_counter() - start
    used_by_all = machine_cpu_seconds() - machine
    used_by_worker = worker.cpu_seconds() - own
    waiting = sum(o.cpu_seconds() - b for o, b in zip(others, idle, strict=True))
    return reply | {
        "cores_used": used_by_worker / elapsed,
        "cores_used_elsewhere": max(0.0, used_by_all - used_by_worker) / elapsed,
        "cores_used_by_waiting_workers": waiting / elapsed,
    }


def is_quiet(record: Record) -> bool:
    """Whether the measured worker had the processor to itself."""
    return record["cores_used_elsewhere"] <= QUIET_CORES


def measure_in_turn(
    workers: Sequence[Worker],
    program: str,
    *,
    rounds: int,
    repetitions: int,
    patience_seconds: float = 0.0,
) -> dict[str, list[Record]]:
    """Run one program on all workers in turn, again and again.

    Goes on until every worker has had ``rounds`` quiet turns, for no more than three
    times as many rounds in all. A round is skipped if the machine does not get quiet
    beforehand, except the first, so that there always is a result.

    Args:
      workers: warm workers that all know ``program``.
      program: name of what to repeat.
      rounds: quiet turns per worker; the order is reversed every other round.
      repetitions: repetitions per turn.
      patience_seconds: how long to wait, before each round, for a quiet machine; 0 to
        start at once.

    Returns:
      One record per round for each worker.
    """
    records: dict[str, list[Record]] = {worker.name: [] for worker in workers}
    for index in range(3 * rounds):
        if all(sum(map(is_quiet, r)) >= rounds for r in records.values()):
            break
        wait = patience_seconds > 0
        if wait and not wait_until_quiet(patience_seconds) and index > 0:
            continue
        for worker in workers if index % 2 == 0 else reversed(workers):
            others = [other for other in workers if other is not worker]
            record = _one_round(worker, others, program, repetitions)
            records[worker.name].append(record)
            print(
                f"{program} {worker.name}:"
                f" {statistics.median(record['seconds']):.3f} s,"
                f" {record['cores_used_elsewhere']:.2f} cores busy elsewhere",
                file=sys.stderr,
            )
    return records


def summarize(records: Sequence[Record]) -> Record:
    """Reduce the rounds of one worker and program to the numbers worth keeping.

    Rounds in which somebody else used the processor are left out; if there are no
    others, all of them count and ``quiet`` is false.

    Returns:
      median, quartiles, extremes in seconds; processor seconds and memory; how quiet
      the machine was.
    """
    quiet = [record for record in records if is_quiet(record)]
    kept = quiet or records
    seconds = sorted(s for record in kept for s in record["seconds"])
    two_or_more = seconds if len(seconds) > 1 else seconds * 2
    quartiles = statistics.quantiles(two_or_more, method="inclusive")
    cpu = sum(record["cpu_seconds"] for record in kept)
    return {
        "median_seconds": statistics.median(seconds),
        "quartiles_seconds": [quartiles[0], quartiles[2]],
        "min_seconds": seconds[0],
        "max_seconds": seconds[-1],
        "cpu_seconds_per_repetition": cpu / len(seconds),
        "peak_mib": max(record["peak_mib"] for record in records),
        "device_peak_mib": records[-1].get("device_peak_mib"),
        "repetitions": len(seconds),
        "rounds_kept": len(kept),
        "rounds_run": len(records),
        "quiet": bool(quiet),
        "cores_used": statistics.median(r["cores_used"] for r in kept),
        "cores_used_elsewhere": statistics.median(
            r["cores_used_elsewhere"] for r in kept
        ),
        "cores_used_by_waiting_workers": max(
            r["cores_used_by_waiting_workers"] for r in kept
        ),
    }
