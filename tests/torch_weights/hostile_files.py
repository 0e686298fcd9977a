"""Files that are no honest checkpoint, made on the spot; some would leave a marker."""

import collections
import io
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


class Payload:
    """Makes a file when unpickled by an ordinary reader."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def state_dict() -> dict[str, torch.Tensor]:
    return collections.OrderedDict(
        [("stem.0.weight", torch.ones(12, 3, 3, 3)), ("classifier.bias", torch.ones(9))]
    )


def saved(value, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def rebuilt(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """Write a zip again with members changed."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(stream, "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return stream.getvalue()


def with_pickle(old: bytes, new: bytes) -> bytes:
    """Replace bytes in the pickle of an honest checkpoint."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return content
        assert old in content
        return content.replace(old, new)

    return rebuilt(saved(state_dict()), change)


def zip_bomb() -> bytes:
    """Two gigabytes of zeros in two megabytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        with archive.open("a/data/0", "w", force_zip64=True) as member:
            for _ in range(128):
                member.write(bytes(2**24))
    return stream.getvalue()


def legacy_with_late_payload(marker: Path) -> bytes:
    """The magic number first, as an honest stream; then the payload."""
    honest = saved(state_dict(), legacy=True)
    stream = io.BytesIO(honest)
    pickle.load(stream)
    return honest[: stream.tell()] + pickle.dumps(Payload(marker), 2)


def legacy_claiming_much() -> bytes:
    """A storage that claims 4 GB, with nothing behind it."""
    honest = saved({"a": torch.zeros(7)}, legacy=True)
    claim = b"K\x07N" if b"K\x07N" in honest else b"K\x07"
    big = b"J" + struct.pack("<i", 10**9) + claim[2:]
    return honest.replace(claim, big, 1)


def module_bytes(*, legacy: bool) -> bytes:
    return saved(torch.nn.Sequential(torch.nn.Linear(2, 2)), legacy=legacy)


def quantized() -> bytes:
    with warnings.catch_warnings(action="ignore"):
        tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)
        return saved({"w": tensor})


def with_an_attribute() -> bytes:
    """A method of the dictionary replaced by a tensor."""
    state = state_dict()
    state.__dict__["get"] = torch.ones(1)
    return saved(state)


def views_without_end() -> bytes:
    """Many names for the same megabyte."""
    base = torch.zeros(2**18)
    return saved({f"w{i}": base for i in range(3000)})


def deep_nesting() -> bytes:
    return b"\x80\x02" + b")" + b"\x85" * 300_000 + b"."


def make(marker: Path) -> dict[str, tuple[bytes, str]]:
    """Return name -> content and a part of the message that must follow."""
    payload = Payload(marker)
    expanded = torch.zeros(1).expand(1000, 1000, 1000)
    honest = saved(state_dict())
    double = with_pickle(b"FloatStorage", b"DoubleStorage")
    complex_kind = with_pickle(b"FloatStorage", b"ComplexFloatStorage")
    return {
        "reduce in a zip": (saved(payload), "asks for 'posix.system'"),
        "reduce nested": (saved({"a": {"b": [payload]}}), "asks for 'posix.system'"),
        "reduce beside": (saved(state_dict() | {"x": payload}), "asks for 'posix.s"),
        "legacy first": (pickle.dumps(payload, 2) + bytes(64), "asks for 'posix.sy"),
        "legacy late": (legacy_with_late_payload(marker), "asks for 'posix.system'"),
        "protocol 4": (pickle.dumps(payload, 4) + bytes(64), "of protocol 4"),
        "protocol 0": (pickle.dumps(payload, 0) + bytes(64), "is no file of torch"),
        "expanded": (saved({"w": expanded}), "more than once"),
        "expanded, legacy": (saved({"w": expanded}, legacy=True), "more than once"),
        "twice": (twice(honest), "two parts of the same name"),
        "zip bomb": (zip_bomb(), "compressed"),
        "truncated": (honest[:-200], "is truncated or damaged"),
        "truncated, legacy": (saved(state_dict(), legacy=True)[:-20], "is truncated"),
        "longer, legacy": (
            saved(state_dict(), legacy=True) + b"more",
            "behind its end",
        ),
        "cut pickle": (saved(state_dict(), legacy=True)[:70], "damaged or cut short"),
        "unknown storage": (complex_kind, "unknown storage type"),
        "claims too much": (double, "claims "),
        "claims much, legacy": (legacy_claiming_much(), "claims 4000000000 bytes"),
        "module": (module_bytes(legacy=False), "whole pickled module"),
        "module, legacy": (module_bytes(legacy=True), "whole pickled module"),
        "numpy scalar": (saved({"best": np.float64(1)}), "NumPy number"),
        "numpy array": (saved({"best": np.zeros(3)}), "NumPy array"),
        "sparse": (saved({"w": torch.eye(3).to_sparse()}), "sparse tensor"),
        "quantized": (
            saved(
                {"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)}
            ),
            "quantized tensor",
        ),
        "attribute": (with_an_attribute(), "sets attributes"),
        "many views": (views_without_end(), "stored bytes as tensors"),
        "deep": (deep_nesting() + bytes(64), "not one of torch.save"),
        "long program": (b"\x80\x02" + b"]0" * 10**6 + b".", "instructions"),
        "long text": (
            b"\x80\x02X" + struct.pack("<I", 2**31) + b"a" * 100,
            "far too long",
        ),
        "huge memo": (b"\x80\x02]r\xff\xff\xff\xff" + b"." + bytes(64), "not one of"),
        "empty": (b"", "is empty (0 bytes)"),
        "two bytes": (b"\r\n", "empty placeholder (2 bytes)"),
        "web page": (b"\n<!DOCTYPE html><html>" + b" " * 99, "web page"),
        "lfs": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64,
            "Git LFS pointer",
        ),
        "json": (b'{"message": "not found"}' + b" " * 99, "is text"),
        "gzip": (b"\x1f\x8b" + bytes(99), "gzip"),
        "tar": (bytes(257) + b"ustar" + bytes(99), "tar archive"),
        "noise": (bytes(range(33, 133)), "no file of torch.save"),
        "other zip": (
            rebuilt(honest, lambda n, c: c).replace(b"data.pkl", b"data.pk1"),
            "not one of torch.save",
        ),
        "nothing in it": (saved({}), "holds nothing"),
        "a tensor": (saved(torch.ones(3)), "holds a Tensor"),
        "no tensors": (saved({"epoch": 3, "lr": 0.1}), "no state dict ('epoch'"),
        "script": (rebuilt_script(honest), "TorchScript"),
        "big endian": (
            rebuilt(honest, lambda n, c: b"big" if n.endswith("byteorder") else c),
            "big-endian",
        ),
    }


def twice(honest: bytes) -> bytes:
    """Two pickles whose names differ in case, which PyTorch does not heed."""
    stream = io.BytesIO(honest)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("archive/DATA.PKL", pickle.dumps(print, 2))
    return stream.getvalue()


def rebuilt_script(honest: bytes) -> bytes:
    stream = io.BytesIO(honest)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    return stream.getvalue()
