"""Reading ``.pt`` files: honest ones whole, all others refused without being run."""

import io
import json
import logging
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import hostile_files  # noqa: E402

from adarts_jax.errors import UserError  # noqa: E402
from adarts_jax.torch_weights import reader  # noqa: E402
from adarts_jax.torch_weights.reader import check_version, read_state_dict  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
# Of processor time: the machine may be busy.
MOST_SECONDS, MOST_MEGABYTES = 5, 500


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Write every hostile file; return folder, marker and the messages to expect."""
    folder = tmp_path_factory.mktemp("hostile")
    marker = folder / "marker"
    messages = {}
    for name, (content, message) in hostile_files.make(marker).items():
        messages[name] = message
        (folder / f"{name}.pt").write_bytes(content)
    return folder, marker, messages


# Runs the program on every file of a folder, as a user would, and reports.
REPORT = r"""
import contextlib, io, json, re, sys, time
from pathlib import Path
from adarts_jax.convert import main
for path in sorted(Path(sys.argv[1]).glob("*.pt")):
    stderr, start = io.StringIO(), time.process_time()
    with contextlib.redirect_stderr(stderr):
        status = main(["from-torch", str(path), "--out", sys.argv[2]])
    seconds = time.process_time() - start
    # Not ru_maxrss, which counts what the parent had before this program began.
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    megabytes = int(peak[1]) / 1000
    print(json.dumps([path.stem, status, stderr.getvalue(), seconds, megabytes]))
print(json.dumps("torch" in sys.modules))
"""


def test_hostile_files_run_nothing_and_cost_nothing(hostile, tmp_path):
    folder, marker, messages = hostile
    done = subprocess.run(
        [sys.executable, "-c", REPORT, str(folder), str(tmp_path / "model")],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    *reports, torch_was_needed = map(json.loads, done.stdout.splitlines())
    assert not marker.exists()
    assert not (tmp_path / "model").exists()
    assert not torch_was_needed  # refused before anything of it was loaded
    assert {name for name, *_ in reports} == set(messages)
    for name, status, stderr, seconds, megabytes in reports:
        assert (status, stderr.count("\n")) == (2, 1), name
        assert stderr.startswith("error: "), name
        assert messages[name] in stderr, name
        assert seconds < MOST_SECONDS, name
        assert megabytes < MOST_MEGABYTES, name


def test_the_payloads_would_have_run(hostile):
    """The marker must be able to appear, or its absence means nothing."""
    folder, marker, _ = hostile
    try:
        torch.load(folder / "reduce in a zip.pt", weights_only=False)
        assert marker.exists()
    finally:
        marker.unlink(missing_ok=True)


STATE = OrderedDict(
    [
        ("a.weight", torch.arange(24.0).reshape(2, 3, 4)),
        ("a.running_var", torch.ones(3)),
        ("a.num_batches_tracked", torch.tensor(7)),
    ]
)


def save(path, value, **options):
    torch.save(value, path, **options)
    return path


def assert_equal(found, wanted):
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(found[name], tensor.detach().float().numpy())


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        STATE,
        dict(STATE),
        {"epoch": 3, "state_dict": STATE, "best": 0.5, "optimizer": {"state": [STATE]}},
        {name: torch.nn.Parameter(t.float()) for name, t in STATE.items()},
        {"tied": STATE["a.weight"], "again": STATE["a.weight"]},
        {"turned": STATE["a.weight"].permute(2, 0, 1), "part": STATE["a.weight"][:, 1]},
        {"scalar": torch.tensor(2.5), "none": torch.zeros(0, 3)},
    ],
    ids=["ordered", "dict", "wrapped", "parameters", "tied", "views", "scalar"],
)
def test_honest_files_are_read_whole(tmp_path, value, zip_format):
    file = save(tmp_path / "a.pt", value, _use_new_zipfile_serialization=zip_format)
    assert_equal(read_state_dict(file), value.get("state_dict", value))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_become_float32_and_this_is_told(tmp_path, caplog, kind):
    with caplog.at_level(logging.WARNING):
        found = read_state_dict(save(tmp_path / "a.pt", {"w": torch.ones(2).to(kind)}))
    assert found["w"].dtype == np.float32
    assert str(kind) in caplog.text


def test_arrays_do_not_share_memory(tmp_path):
    tied = {"a": STATE["a.weight"], "b": STATE["a.weight"]}
    found = read_state_dict(save(tmp_path / "a.pt", tied))
    found["a"][:] = -1
    assert found["b"].min() == 0


def test_the_goldens_are_read_as_pytorch_reads_them(shared):
    for name in ("D_rnn_ENAS", "A3_alpha_NASNet"):
        file = shared / "golden" / f"{name}.pt"
        assert_equal(read_state_dict(file), torch.load(file, weights_only=True))


@pytest.mark.parametrize(
    ("version", "hole"),
    [
        ("2.5.1", "CVE-2025-32434"),
        ("1.13.1+cu117", "CVE-2025-32434"),
        ("2.6.0", "CVE-2026-24747"),
        ("2.9.9", "CVE-2026-24747"),
        ("2.10.0rc1", "CVE-2026-24747"),
        ("2.10.0a0+git123", "CVE-2026-24747"),
        ("2.10.0", None),
        ("2.10.1.dev2", None),
        ("2.13.0+cpu", None),
        ("3.0", None),
        ("unknown", "CVE-2025-32434"),
    ],
)
def test_versions_with_known_holes_are_refused(version, hole):
    if hole is None:
        check_version(version)
        return
    with pytest.raises(UserError, match=f"{hole}.*pip install.*torch"):
        check_version(version)


def test_an_old_version_reads_nothing(tmp_path, monkeypatch):
    file = save(tmp_path / "a.pt", STATE)
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(UserError, match="CVE-2026-24747"):
        read_state_dict(file)


def test_without_pytorch_the_extra_is_named(tmp_path, monkeypatch):
    file = save(tmp_path / "a.pt", STATE)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install 'adarts-jax\[torch\]'"):
        read_state_dict(file)


def test_pytorch_is_only_asked_to_read_weights(tmp_path, monkeypatch):
    asked, load = [], torch.load

    def watch(file, **options):
        asked.append(options)
        return load(file, **options)

    monkeypatch.setattr(torch, "load", watch)
    read_state_dict(save(tmp_path / "a.pt", STATE))
    assert asked == [{"map_location": "cpu", "weights_only": True}]


def test_a_refusal_of_pytorch_is_final(tmp_path, monkeypatch):
    def refuse(*_, **options):
        assert options["weights_only"]
        raise RuntimeError("no\nway")

    file = save(tmp_path / "a.pt", STATE)
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(UserError, match=r"PyTorch refuses .*no way"):
        read_state_dict(file)


def test_what_is_loaded_must_be_what_was_checked(tmp_path, monkeypatch):
    file = save(tmp_path / "a.pt", STATE)
    monkeypatch.setattr(torch, "load", lambda *_, **__: {"b": torch.ones(2)})
    with pytest.raises(UserError, match="does not hold what it announces"):
        read_state_dict(file)


def test_places_without_a_file(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="No such file"):
        read_state_dict(tmp_path / "nowhere.pt")
    with pytest.raises(UserError, match="is a folder"):
        read_state_dict(tmp_path)
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(UserError, match="no ordinary file"):
        read_state_dict(tmp_path / "pipe.pt")
    monkeypatch.setattr(reader, "MAX_FILE_BYTES", 100)
    with pytest.raises(UserError, match="more than the 100"):
        read_state_dict(save(tmp_path / "a.pt", STATE))


@pytest.mark.parametrize("zip_format", [True, False])
def test_any_damage_is_one_line(tmp_path, zip_format):
    """Bytes changed at random: refused, or read; never another kind of error."""
    stream, file, refused = io.BytesIO(), tmp_path / "a.pt", []
    torch.save(STATE, stream, _use_new_zipfile_serialization=zip_format)
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(stream.getvalue())
        for place in random.integers(0, len(damaged), 3):
            damaged[place] = random.integers(256)
        file.write_bytes(damaged)
        try:
            read_state_dict(file)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert not any("\n" in message for message in refused)
