"""Every search recipe of CIFAR-10, cut down for a CPU, by the real program.

    python -m benchmarks.cut_down --data-dir DATA
    python -m benchmarks.cut_down --data-dir DATA --only darts_cifar10 --epochs 5

Prints the table of ``docs/methods.md``. It shows that a method runs through warm-up and
architecture epochs on real images; so short a search says nothing about its cells.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adarts_jax.space.genotype import Genotype

ROOT = Path(__file__).resolve().parent.parent
SIZES = {
    "data.num-examples": "512",
    "network.init-channels": "4",
    "network.num-cells": "3",
    "batch-size": "16",
}
# What a recipe needs to train at all; random search only draws without it.
NEEDED = {"random_cifar10": {"options.weight-sharing": "true"}}
COLUMNS = (
    "recipe",
    "weight loss",
    "accuracy",
    "architecture loss",
    "minutes",
    "skips",
)


def find_recipes() -> list[str]:
    """Return one recipe per way to search on CIFAR-10."""
    names = sorted(path.stem for path in (ROOT / "configs").glob("*_cifar10*.toml"))
    searches = [n for n in names if not n.startswith(("retrain", "select"))]
    return [n for n in searches if n.endswith(("_cifar10", "_first_order"))]


def search(recipe: str, settings: Sequence[str], out: Path) -> float:
    """Run the program; return the seconds that it took."""
    command = [sys.executable, "-m", "adarts_jax.search", "--overwrite"]
    command += ["--config", str(ROOT / "configs" / f"{recipe}.toml"), *settings]
    start = time.perf_counter()
    with (out.parent / f"{out.name}.log").open("w") as log:
        subprocess.run(
            [*command, "--out", str(out)], check=True, stdout=log, stderr=log
        )
    return time.perf_counter() - start


def summarize(out: Path, seconds: float) -> list[str]:
    """Return what a run is judged by, as cells of a table."""
    lines = (out / "metrics.jsonl").read_text("utf-8").splitlines()
    epochs: list[dict[str, Any]] = [json.loads(line) for line in lines]
    genotype = Genotype.load(out / "genotype.json")  # checks that it is valid
    chosen = [entry.op for entry in (*genotype.normal, *genotype.reduce)]

    def course(name: str, form: str) -> str:
        values = [epoch[name] for epoch in epochs]
        return " ".join("–" if v is None else format(v, form) for v in values)

    return [
        course("weight/loss", ".2f"),
        course("weight/accuracy", ".2f"),
        course("architecture/loss", ".2f"),
        f"{seconds / 60:.1f}",
        f"{chosen.count('skip_connect')} of {len(chosen)}",
    ]


def main() -> None:
    """Search with every recipe, one after the other; print a line for each."""
    recipes = find_recipes()
    parser = argparse.ArgumentParser(description="Cut-down searches on CIFAR-10.")
    parser.add_argument("--data-dir", required=True, help="prepared TFDS data sets")
    parser.add_argument("--only", nargs="+", choices=recipes, default=recipes)
    parser.add_argument("--epochs", type=int, default=3, help="the first one warms up")
    parser.add_argument("--out", type=Path, default=Path("runs/cut_down"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    common = {"epochs": str(args.epochs), "warmup-epochs": "1"} | SIZES
    print(f"Options: {shlex.join(flags(common))}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for recipe in args.only:
        place = args.out / recipe
        settings = flags(common | NEEDED.get(recipe, {}))
        seconds = search(recipe, [*settings, "--data.data-dir", args.data_dir], place)
        print(f"| {' | '.join([recipe, *summarize(place, seconds)])} |", flush=True)


def flags(settings: dict[str, str]) -> list[str]:
    """Return settings as options of the program."""
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


if __name__ == "__main__":
    main()
