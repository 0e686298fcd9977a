"""Every stored ``.pt`` of a network that exists, through the programs, as a user would.

From the file to a model directory, from there to logits and accuracy; nothing here
knows how.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from golden import open_golden, read_index

torch = pytest.importorskip("torch")

import adarts_jax as aj  # noqa: E402
from adarts_jax import convert, predict  # noqa: E402
from adarts_jax.data import sources  # noqa: E402
from adarts_jax.data.augment import (  # noqa: E402
    CIFAR10_MEAN,
    CIFAR10_STD,
    normalize,
)
from train import evaluate  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["A3_alpha_ADARTS_V2"]
SLOW = [
    "A3_alpha_ADARTS_V1",
    "A3_alpha_AmoebaNet",
    "A3_alpha_NASNet",
    "A3_alpha_allops",
    "A3_alpha_genotype2",
    "A3_darts_DARTS_V1",
    "A3_darts_DARTS_V2",
    "A3_pc_PC_DARTS_cifar",
    "A5_att_cifar10_small",
    "A5_att_cifar10_full",
]
UNPUBLISHED = "A3_alpha_allops"  # every operation, at both strides
FULL_SIZE = "A1_alphaadarts_cifar10_full"
FULL_SIZE_100 = "A2_alphaadarts_cifar100_full"
TRAINED = "T1_trained_cifar10_c8_l5"
LARGEST_RELATIVE_ERROR = 1e-4
MOST_SECONDS, MOST_BYTES = 60, 3 * 10**9

# The program, then its processor time on all cores (the machine may be busy) and its
# peak; not ru_maxrss, which counts what the parent had before this program began.
CONVERT = r"""
import re, sys, time
from pathlib import Path
from adarts_jax.convert import main
assert main() == 0
print(time.process_time())
print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADARTS_CACHE", "off")


def predicted(golden) -> np.ndarray:
    """Return the logits that the program writes for the images of a fixture."""
    np.save("images.npy", np.ascontiguousarray(np.moveaxis(golden["x"], 1, -1)))
    assert predict.main(["model", "images.npy", "--out", "logits.npz"]) == 0
    with np.load("logits.npz") as arrays:
        return arrays["logits"]


def assert_close(logits, wanted):
    worst = np.abs(logits - wanted).max() / np.abs(wanted).max()
    assert worst <= LARGEST_RELATIVE_ERROR


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_a_converted_file_gives_the_stored_logits(shared, name):
    golden, file = open_golden(shared, name), shared / "golden" / f"{name}.pt"
    argv = ["from-torch", str(file), "--out", "model"]
    if name == UNPUBLISHED:
        aj.Genotype(**golden.entry["genotype"]).save("genotype.json")
        argv += ["--genotype", "genotype.json"]
    assert convert.main(argv) == 0
    assert_close(predicted(golden), golden["eval/logits"])


def test_every_stored_file_is_in_a_list(shared):
    found = {path.stem for path in (shared / "golden").glob("*.pt")}
    derived = {name for name in found if name[0] in "AT"}
    assert derived == {*QUICK, *SLOW, FULL_SIZE, TRAINED}
    assert set(read_index(shared / "golden")) >= found


@pytest.mark.slow
@pytest.mark.parametrize("name", [FULL_SIZE, FULL_SIZE_100])
def test_the_published_size_within_a_minute(shared, name):
    golden, file = open_golden(shared, name), Path("net.pt")
    state = torch.load(shared / "golden" / f"{FULL_SIZE}.pt", weights_only=True)
    override = golden.family("override")
    torch.save(state | {k: torch.tensor(v) for k, v in override.items()}, file)
    argv = ["from-torch", str(file), "--out", "model", "--verify"]
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, *argv],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    summary, seconds, peak = map(json.loads, done.stdout.splitlines())
    assert seconds < MOST_SECONDS
    assert peak * 1024 < MOST_BYTES
    assert summary["genotype"] == "alpha_adarts"
    parameters = {FULL_SIZE: 3_285_838, FULL_SIZE_100: 3_337_768}
    assert summary["num_parameters"] == parameters[name]
    assert summary["verification"]["passed"]
    assert_close(predicted(golden), golden["eval/logits"])


@pytest.mark.slow
def test_the_trained_network_gives_the_originals_answers(shared, capsys):
    golden = open_golden(shared, TRAINED)
    file = shared / "golden" / f"{TRAINED}.pt"
    assert convert.main(["from-torch", str(file), "--out", "model"]) == 0
    data = ["--data.source", "tfds", "--data.name", "cifar10"]
    data += ["--data.data-dir", str(shared / "data" / "tfds"), "--split", "test"]
    capsys.readouterr()
    assert evaluate.main(["model", *data, "--out", "judged"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["num_images"] == 10_000
    assert abs(record["correct"] - 6228) <= 2
    assert golden["correct"] == golden.entry["correct"] == 6228
    images = sources.load(
        "tfds", split="test", name="cifar10", data_dir=str(shared / "data" / "tfds")
    )
    np.testing.assert_array_equal(images.labels, golden["labels"])
    np.save("all.npy", normalize(images.images, CIFAR10_MEAN, CIFAR10_STD))
    assert predict.main(["model", "all.npy", "--out", "all.npz"]) == 0
    with np.load("all.npz") as arrays:
        logits = arrays["logits"]
    assert_close(logits, golden["logits"])
    assert (logits.argmax(-1) != golden["predictions"]).sum() <= 2
    assert (logits.argmax(-1) == images.labels).sum() == record["correct"]
    counts = np.array(json.loads(Path("judged/confusion.json").read_text())["counts"])
    assert np.trace(counts) == record["correct"]
