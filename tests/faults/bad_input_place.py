"""The working folder of the bad-input table: good files, and one of each bad kind.

Made once; no program may change anything in it.
"""

import json
import os
import struct
import zlib
from pathlib import Path

import hostile_files
import numpy as np
import safetensors.numpy
from PIL import Image
from tiny_model import CELL, SPEC, write_tiny_model

from adarts_jax.config import SearchConfig

GENOTYPE = SPEC.genotype


def make_place(root: Path) -> None:
    """Fill a folder."""
    make_recipes(root)
    make_genotypes(root)
    make_arrays(root)
    make_pictures(root)
    make_models(root)
    make_runs(root)
    make_checkpoints(root)
    (root / "empty").mkdir()
    (root / "file").write_text("not a folder")
    os.symlink("loop", root / "loop")
    os.symlink("loop.toml", root / "loop.toml")
    os.symlink("/dev/zero", root / "endless.toml")
    os.mkfifo(root / "pipe.toml")
    os.mkfifo(root / "pipe.json")
    os.mkfifo(root / "pipe.npy")
    os.mkfifo(root / "pipe.pt")


def make_recipes(root: Path) -> None:
    """Recipes, TOML and JSON."""
    texts = {
        "typo.toml": "epoch = 3\n",
        "nested.toml": "[data]\nsource = 'npz'\n[data.deep]\nx = 1\n",
        "kind.toml": "epochs = 'many'\n",
        "float.toml": "epochs = 2.5\n",
        "inf.toml": "[weights]\nlearning_rate = inf\n",
        "group.toml": "network = 3\n",
        "twice.toml": "epochs = 3\nepochs = 4\n",
        "syntax.toml": "epochs = = 3\n",
        "deep.toml": "x = " + "[" * 50_000 + "\n",
        "deep.json": "[" * 100_000,
        "digits.json": '{"epochs": ' + "9" * 6000 + "}",
        "list.json": "[1, 2]",
        "nan.json": '{"weights": {"learning_rate": NaN}}',
        "null.toml": '[data]\nsource = "npz"\ndata_dir = "a\\u0000b.npz"\n',
        "retrain.toml": 'genotype = "darts_v2"\nwarmup_epochs = 2\n',
        "recipe.txt": "epochs = 3\n",
        "many.toml": "".join(f"k{n} = 0\n" for n in range(1000)),
        "large.toml": "# " + "x" * 100_000,
    }
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")
    (root / "latin.toml").write_bytes("# größe\nepochs = 3\n".encode("latin-1"))
    (root / "wide.toml").write_bytes("epochs = 3\n".encode("utf-16"))
    (root / "binary.toml").write_bytes(bytes(range(256)))
    (root / "folder.toml").mkdir()


def make_genotypes(root: Path) -> None:
    """Genotypes, good and bad."""
    GENOTYPE.save(root / "good.json")
    good = GENOTYPE.to_dict()
    pools = [list(entry) for entry in CELL]
    changes = {
        "odd": {"normal": [*pools, pools[0]]},
        "few": {"normal": []},
        "node": {"normal": [["max_pool_3x3", 2], pools[1]]},
        "operation": {"normal": [["max_pool_3", 0], pools[1]]},
        "attention": {"normal": [["max_pool_3x3", 0, "SEE"], pools[1]]},
        "concat": {"normal_concat": [7]},
        "format": {"format": "adarts-genotype/9"},
        "many": {"normal": pools * 17},
        "bool": {"normal": [["max_pool_3x3", True], pools[1]]},
    }
    for name, change in changes.items():
        (root / f"{name}.json").write_text(json.dumps(good | change))
    (root / "bomb.json").write_text("[" * 60_000)
    (root / "call.txt").write_text("Genotype(normal=__import__('os').getcwd())")
    (root / "recurrent.txt").write_text("Genotype(recurrent=[('tanh', 0)], concat=[1])")


def make_arrays(root: Path) -> None:
    """Data sets as arrays, and images for predictions."""
    images, labels = np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 2
    floats = images.astype(np.float32)
    sets = {
        "good": (images, labels),
        "tiny": (images[:, :3, :3], labels),
        "odd": (images[:, :7, :7], labels),
        "one_class": (images, 0 * labels),
        "nan": (np.full_like(floats, np.nan), labels),
        "normalised": (floats - 2, labels),
        "wide": (images.astype(np.int64), labels),
        "first": (np.moveaxis(images, -1, 1), labels),
        "negative": (images, labels - 1),
        "far": (images, labels * 10**9),
        "fewer": (images, labels[:5]),
        "none": (images[:0], labels[:0]),
        "text": (images, labels.astype(str)),
        "flat": (images.reshape(20, -1), labels),
    }
    for name, (pixels, classes) in sets.items():
        np.savez(root / f"{name}.npz", images=pixels, labels=classes)
    np.savez(root / "keys.npz", x=images, y=labels)
    objects = np.array([{}] * 20, dtype=object)
    np.savez(root / "pickle.npz", images=objects, labels=labels)
    whole = (root / "good.npz").read_bytes()
    (root / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (root / "text.npy").write_text("hello")
    np.save(root / "double.npy", np.zeros((2, 8, 8, 1)))
    np.save(root / "nan.npy", np.full((2, 8, 8, 1), np.nan, np.float32))
    np.save(root / "shape.npy", np.zeros((2, 8, 8, 3), np.float32))
    np.save(root / "good.npy", np.zeros((2, 8, 8, 1), np.float32))
    np.save(root / "objects.npy", objects, allow_pickle=True)
    header = (root / "good.npy").read_bytes()
    (root / "claim.npy").write_bytes(header.replace(b"(2, 8,", b"(999999999999, 8,", 1))
    (root / "huge.npy").write_bytes(
        b"\x93NUMPY\x01\x00"
        + struct.pack("<H", 118)
        + b"{'descr': '<f4', "
        b"'fortran_order': False, 'shape': (1000000000000, 8, 8, 1), }".ljust(117)
        + b"\n"
    )


def make_pictures(root: Path) -> None:
    """Folders of pictures; the usual one first."""
    for split in ("train", "test"):
        for name in ("cats", "dogs"):
            folder = root / "pictures" / split / name
            folder.mkdir(parents=True)
            Image.new("L", (8, 8)).save(folder / "a.png")
    grey = (root / "pictures" / "train" / "cats" / "a.png").read_bytes()
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 9)]
    moving = root / "moving.gif"
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    bad = {
        "zero": b"",
        "words": b"no picture",
        "cut": grey[:-35],
        "gif": moving.read_bytes(),
        "bomb": png_of(50_000, 50_000),
        "noise": grey[:40] + bytes(20) + grey[60:],
    }
    for name, content in bad.items():
        for label in ("cats", "dogs"):
            folder = root / f"bad_{name}" / "train" / label
            folder.mkdir(parents=True)
            (folder / "a.png").write_bytes(content if label == "cats" else grey)
    for label in ("cats", "dogs"):
        folder = root / "sizes" / "train" / label
        folder.mkdir(parents=True)
        Image.new("L", (8, 8 if label == "cats" else 12)).save(folder / "a.png")
    (root / "one" / "train" / "cats").mkdir(parents=True)
    (root / "one" / "train" / "cats" / "a.png").write_bytes(grey)
    (root / "void" / "train" / "cats").mkdir(parents=True)


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = (
        chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def make_models(root: Path) -> None:
    """Model directories: a good one, and copies with one thing changed."""
    write_tiny_model(root / "model")
    tensors = safetensors.numpy.load_file(root / "model" / "weights.safetensors")
    weights = (root / "model" / "weights.safetensors").read_bytes()
    spec = json.loads((root / "model" / "model.json").read_text())

    def copy(name: str, change: dict | bytes | None = None, **arrays) -> None:
        folder = root / f"model_{name}"
        folder.mkdir()
        text = json.dumps(spec | (change if isinstance(change, dict) else {}))
        content = change if isinstance(change, bytes) else text.encode()
        (folder / "model.json").write_bytes(content)
        if arrays:
            safetensors.numpy.save_file(
                tensors | arrays, folder / "weights.safetensors"
            )
        else:
            (folder / "weights.safetensors").write_bytes(weights)

    stem = tensors["stem.0.weight"]
    copy("nan", **{"stem.0.weight": np.full_like(stem, np.nan)})
    copy("half", **{"stem.0.weight": stem.astype(np.float16)})
    copy("shape", **{"stem.0.weight": np.zeros((24, 1, 3, 3), np.float32)})
    copy("foreign", **{"conv1.weight": stem})
    copy("deep", b"[" * 100_000)
    copy("binary", bytes(range(256)))
    copy("empty", b"")
    copy("cells", {"num_cells": 10**9})
    copy("channels", {"init_channels": 10**12})
    copy("classes", {"num_classes": 0})
    copy("std", {"normalization_std": [0]})
    copy("format", {"format": "adarts-model/9"})
    far = {"data": {"source": "folder", "name": "x" * 300}}
    copy("far", {"provenance": far})
    copy("key", {"num_cels": 3})
    copy("genotype", {"genotype": GENOTYPE.to_dict() | {"normal": []}})
    copy("deeper", {"num_cells": 900})
    copy("wider", {"init_channels": 65_536})
    copy("size", {"image_size": [10**9, 10**9]})
    copy("cut")
    (root / "model_cut" / "weights.safetensors").write_bytes(weights[:-100])
    copy("weightless")
    (root / "model_weightless" / "weights.safetensors").unlink()
    copy("pipe")
    (root / "model_pipe" / "model.json").unlink()
    os.mkfifo(root / "model_pipe" / "model.json")
    copy("claim")
    (root / "model_claim" / "weights.safetensors").write_bytes(claiming(10**12))


def claiming(elements: int) -> bytes:
    """A weights file that claims very much."""
    entry = {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}
    head = json.dumps({"stem.0.weight": entry}).encode()
    return struct.pack("<Q", len(head)) + head


def make_runs(root: Path) -> None:
    """Run directories that are none, or not the one that is meant."""

    def write(name: str, **files: str) -> None:
        (root / name).mkdir()
        for file, text in files.items():
            (root / name / file.replace("_", ".")).write_text(text)

    write("run_empty", config_json="{}")
    write("run_text", config_json="hello")
    write("run_list", config_json="[]")
    write("run_deep", config_json="[" * 100_000)
    write("run_metrics", config_json="{}", metrics_jsonl='{"epoch": 0\n{"epoch": 1}\n')
    write("run_genotype", config_json="{}", genotype_json='{"format": "x"}')
    write("run_busy", config_json="{}")
    write("run_nested", config_json='{"a":' * 60 + "1" + "}" * 60)
    for name in ("pickled", "nameless", "edges", "place"):
        write(f"run_{name}", config_json="{}")
    file = "architecture.npz"
    np.savez(root / "run_pickled" / file, x=np.array([{}], dtype=object))
    np.savez(root / "run_nameless" / file, op_weights_normal=np.zeros((2, 2)))
    wrong = {"op_weights_normal": np.zeros((3, 1)), "primitives": np.array(["none"])}
    np.savez(root / "run_edges" / file, **wrong)
    (root / "run_place" / "report.html").mkdir()
    write("run_done", config_json=SearchConfig(seed=3).model_dump_json())
    (root / "run_done" / "checkpoints" / "5").mkdir(parents=True)
    write("run_binary")
    (root / "run_binary" / "config.json").write_bytes(bytes(range(256)))


def make_checkpoints(root: Path) -> None:
    """Files for the converter."""
    files = {
        "hostile": hostile_files.saved(hostile_files.Payload(root / "marker")),
        "module": hostile_files.module_bytes(legacy=False),
        "deep": hostile_files.deep_nesting() + bytes(64),
        "claim": hostile_files.legacy_claiming_much(),
        "state": hostile_files.saved(hostile_files.state_dict()),
        "cut": hostile_files.saved(hostile_files.state_dict())[:-200],
        "page": b"<!DOCTYPE html><html>" + b" " * 99,
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64,
        "two": b"\r\n",
        "number": hostile_files.saved({"best": np.float64(1)}),
    }
    for name, content in files.items():
        (root / f"{name}.pt").write_bytes(content)
