"""What the fault tests share: small runs, processes to be hit, what must not differ.

A run is called by its kind: ``search`` and ``retrain`` are the real programs on the
smallest networks there are, ``fake`` the search on a linear classifier.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from adarts_jax import search
from adarts_jax.engine.console import Console
from train import retrain

PACED_PROGRAM = Path(__file__).with_name("paced_program.py")
GENOTYPE = (
    "Genotype(normal=[('max_pool_3x3', 0), ('skip_connect', 1)], normal_concat=[2], "
    "reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])"
)
EPOCHS = 3
OPTIONS = {
    "search": [
        *("--network.num-cells", "1", "--network.init-channels", "4"),
        *("--network.channel-divisor", "4", "--warmup-epochs", "1"),
        *("--epochs", str(EPOCHS), "--batch-size", "8", "--data.num-examples", "64"),
    ],
    "fake": [
        *("--epochs", str(EPOCHS), "--warmup-epochs", "1"),
        *("--batch-size", "16", "--data.num-examples", "128"),
    ],
    "retrain": [
        *("--genotype", GENOTYPE, "--epochs", str(EPOCHS)),
        *("--network.num-cells", "1", "--network.init-channels", "2"),
        *("--batch-size", "16", "--data.num-examples", "72"),
        *("--data.held-out-fraction", "0.1", "--data.cutmix-probability", "0.5"),
        *("--network.drop-path-rate", "0.3", "--weights.ema-decay", "0.5"),
    ],
}
STEPS = 4  # per epoch, of all of them
MAINS = {"search": search.main, "fake": search.main, "retrain": retrain.main}


def run(kind, place, *argv):
    """Run a program in this process and return its status."""
    return MAINS[kind]([*OPTIONS[kind], "--out", str(place), *argv])


class Process:
    """A program in a process of its own; its lines on stderr are read one by one."""

    def __init__(self, kind, place, *argv):
        paths = filter(None, [str(PACED_PROGRAM.parents[2]), *sys.path])
        self.lines = []
        self.started = time.monotonic()
        options = [*OPTIONS[kind], "--out", str(place), *argv]
        self._process = subprocess.Popen(
            [sys.executable, PACED_PROGRAM, kind, *options],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, text):
        """Read up to the line with a text."""
        self._read_until(lambda line: text in line, repr(text))

    def wait_for_step(self, step):
        """Read up to the line of a step, or of a later one if it resumed beyond."""

        def is_reached(line):
            found = re.search(r": step (\d+)/", line)
            return found and int(found[1]) >= step

        self._read_until(is_reached, f"step {step}")

    def _read_until(self, is_meant, name):
        for line in self._process.stderr:
            self.lines.append(line.rstrip("\n"))
            if is_meant(line):
                return
        raise AssertionError(f"it ended without {name}: {self.lines[-5:]}")

    @property
    def pid(self):
        return self._process.pid

    def send(self, signum):
        self._process.send_signal(signum)

    def end(self):
        """Wait for the end; return the status, negative for a signal."""
        self.lines += self._process.stderr.read().splitlines()
        return self._process.wait()


def read_json(path):
    return json.loads(path.read_text())


def records(place):
    file = place / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def untimed(place):
    """Return the records without clocks; each epoch must be there once."""
    found = records(place)
    assert [record["epoch"] for record in found] == list(range(len(found)))
    return [
        {name: value for name, value in record.items() if not name.startswith("time/")}
        for record in found
    ]


def outcome(place):
    """Return all that must not depend on what happened to a run on its way.

    That is every byte of every file but clocks: the manifest, the time of records (and
    so the report), and names inside of checkpoints, of which the content counts.
    """
    clocks = ("manifest.json", "metrics.jsonl", "report.html")
    files = {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and path.name not in clocks
    }
    found = {n: text for n, text in files.items() if not n.startswith("checkpoints/")}
    found["metrics"] = untimed(place)
    last = newest(place)
    meta = read_json(last / "meta" / "metadata")
    found["checkpoint"] = (last.name, meta["bytes"], meta["crc32"])
    return found


def same(place, whole):
    """Compare two outcomes, file by file, for a readable failure."""
    found, wanted = outcome(place), outcome(whole)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    return True


def newest(place):
    """Return the folder of the newest checkpoint."""
    steps = [p for p in (place / "checkpoints").iterdir() if p.name.isdigit()]
    return max(steps, key=lambda path: int(path.name))


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    place = np.random.default_rng(len(content)).integers(len(content))
    content[place] ^= 0xFF
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


DAMAGES = {
    "truncated": truncate,
    "flipped byte": flip_a_byte,
    "emptied": empty,
    "missing": Path.unlink,
}


@contextlib.contextmanager
def small_disk(place, size):
    """Mount a memory disk of ``size`` bytes; yields a function that remounts it."""

    def mount(*arguments):
        return subprocess.run(["mount", *arguments], capture_output=True).returncode

    def remount(option):
        # The disk is busy while a thread of a checkpoint is writing.
        last = time.monotonic() + 20
        while mount("-o", f"remount,{option}", str(place)):
            assert time.monotonic() < last, f"cannot remount {place} {option}"
            time.sleep(0.002)

    place.mkdir(exist_ok=True)
    if mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)):
        yield None
        return
    try:
        yield remount
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def copy(whole, place):
    """Return a run to be damaged."""
    shutil.copytree(whole, place)
    return place


def when(monkeypatch, step, act):
    """Call a function when a run in this process has done a number of steps."""
    original = Console.progress

    def progress(self, done, description, seconds_per_step):
        if done == step:
            act()
        original(self, done, description, seconds_per_step)

    monkeypatch.setattr(Console, "progress", progress)


def signal_at(monkeypatch, step, signum=signal.SIGTERM):
    """Send this process a signal when its run has done a number of steps."""
    when(monkeypatch, step, lambda: os.kill(os.getpid(), signum))
