"""The two file formats of ``torch.save``: where pickle and numbers are, and how many.

Sizes are checked here, before any number is read. What is no such file is named.
"""

import io
import struct
import zipfile
from collections.abc import Mapping

from adarts_jax.torch_weights.pickle_outline import Outline, read_outline
from adarts_jax.torch_weights.tensor_outline import OutlineError

MAX_MEMBERS = 50_000
MAX_PICKLE_BYTES = 16 * 2**20

SMALLEST_FILE = 64  # bytes; any .pt file has more
_ZIP = b"PK\x03\x04"
_ZIP_ENTRY = b"PK\x01\x02"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_PICKLE = b"\x80"

_DOWNLOAD = "download it again"
# What else arrives under the name of a checkpoint: first bytes, and what they mean.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the file it stands for; fetch it with: git lfs pull",
    ),
    (b"<", "is a web page or XML, not a checkpoint; the download link showed a page"),
    (b"{", "is text, not a checkpoint; is it an error message of a download?"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
    (b"Rar!", "is a RAR archive; unpack it first"),
    (b"\x89HDF", "is an HDF5 file, not one of torch.save"),
)


def describe(data: bytes) -> Outline:
    """Return what a file would build, after checking that its numbers are there.

    Args:
      data: the whole file.

    Raises:
      OutlineError: another kind of file, damaged, or not that of a state dict.
    """
    if len(data) < SMALLEST_FILE:
        # The released CIFAR-100 file of alpha-ADARTS is 2 bytes long.
        kind = "is empty" if not data else "is no checkpoint but an empty placeholder"
        raise OutlineError(f"{kind} ({len(data)} bytes); {_DOWNLOAD}")
    if data.startswith(_ZIP):
        outline, present = _read_zip(data)
    elif data.startswith(_PICKLE):
        outline, present = _read_legacy(data)
    else:
        raise _other_kind(data)
    _check_storages(outline, present)
    return outline


def _other_kind(data: bytes) -> OutlineError:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    for first, reason in _OTHERS:
        if start.startswith(first):
            return OutlineError(reason)
    if data[257:262] == b"ustar":
        return OutlineError("is a tar archive; unpack it first")
    return OutlineError("is no file of torch.save: neither zip nor legacy format")


def _read_zip(data: bytes) -> tuple[Outline, Mapping[str, int]]:
    """Read the pickle of a zip; return it with the sizes of the storages."""
    if data.count(_ZIP_ENTRY) > MAX_MEMBERS:
        raise OutlineError(f"has more than {MAX_MEMBERS} parts, far too many")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            sizes = _member_sizes(archive)
            folder = _folder(sizes)
            if folder + "constants.pkl" in sizes:
                raise OutlineError("is a TorchScript program, not a state dict")
            order = folder + "byteorder"
            if order in sizes and archive.read(order)[:9] != b"little":
                raise OutlineError("was written on a big-endian machine")
            outline = read_outline(io.BytesIO(archive.read(folder + "data.pkl")))
    except OutlineError:
        raise
    except (
        zipfile.BadZipFile,
        ArithmeticError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        ValueError,
        struct.error,
    ) as error:
        reason = f"is truncated or damaged ({' '.join(str(error).split())})"
        raise OutlineError(f"{reason}; {_DOWNLOAD}") from None
    start = folder + "data/"
    return outline, {
        name.removeprefix(start): size
        for name, size in sizes.items()
        if name.startswith(start)
    }


def _member_sizes(archive: zipfile.ZipFile) -> dict[str, int]:
    """Return sizes by name; torch.save stores its parts as they are, once each."""
    members = archive.infolist()
    for member in members:
        stored = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
        if not stored or member.file_size != member.compress_size:
            raise OutlineError(
                f"has a compressed or encrypted part ({member.filename[:40]!r}), which "
                "torch.save never writes"
            )
    # PyTorch finds parts by name without regard to case.
    if len({member.filename.lower() for member in members}) < len(members):
        raise OutlineError("has two parts of the same name; it is made up")
    return {member.filename: member.file_size for member in members}


def _folder(sizes: Mapping[str, int]) -> str:
    """Return the one folder of a checkpoint, after a look at its pickle's size."""
    pickles = [name for name in sizes if name.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0].count("/") != 1:
        raise OutlineError("is a zip archive, but not one of torch.save")
    if sizes[pickles[0]] > MAX_PICKLE_BYTES:
        raise OutlineError(
            f"has a pickle of {sizes[pickles[0]]} bytes, far beyond a state dict"
        )
    return pickles[0].removesuffix("data.pkl")


def _read_legacy(data: bytes) -> tuple[Outline, Mapping[str, int]]:
    """Read a stream of PyTorch before 1.6: five pickles, then the numbers."""
    stream = io.BytesIO(data)
    if read_outline(stream).root != _LEGACY_MAGIC:
        raise OutlineError("is a pickle, but not one of torch.save")
    protocol, system = read_outline(stream).root, read_outline(stream).root
    little = isinstance(system, dict) and system.get("little_endian") is True
    if protocol != _LEGACY_PROTOCOL or not little:
        raise OutlineError("was written by another version or a big-endian machine")
    outline = read_outline(stream)
    keys = read_outline(stream).root
    claimed = {storage.key: storage for storage in outline.storages}
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or sorted(keys) != sorted(claimed):
        raise OutlineError("is damaged: its storages are not those of its tensors")
    present = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little", signed=True)
        present[key] = count * claimed[key].itemsize
        if not 0 <= present[key] <= len(data) - stream.tell():
            raise OutlineError(f"is truncated: numbers are missing; {_DOWNLOAD}")
        stream.seek(present[key], io.SEEK_CUR)
    if stream.tell() != len(data):
        raise OutlineError(f"has something behind its end; {_DOWNLOAD}")
    return outline, present


def _check_storages(outline: Outline, present: Mapping[str, int]) -> None:
    """Check claimed sizes against stored ones."""
    storages = outline.storages
    if len({storage.key for storage in storages}) < len(storages):
        raise OutlineError("is damaged: two descriptions of one storage differ")
    for storage in storages:
        if present.get(storage.key) != storage.nbytes:
            raise OutlineError(
                f"claims {storage.nbytes} bytes for storage {storage.key[:40]!r} but "
                f"holds {present.get(storage.key, 'none')}; {_DOWNLOAD}"
            )
