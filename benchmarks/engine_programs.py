"""The engine's own programs for a recipe, on images drawn at random.

What ``epoch`` and ``compile_time`` measure: everything a run does between its config
and the first step, but for reading images and writing files.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours
from benchmarks.timing import Record

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Setting:
    """A recipe of a search and one of a training, cut down or not, and their images.

    Attributes:
      num_images: of the training set.
      image_shape: height, width, channels.
      search_recipe: file below ``configs``.
      retrain_recipe: file below ``configs``.
      steps: per repetition.
      rounds: quiet turns per row.
      repetitions: per turn.
      search_changes: dotted field of the search config to its value.
      retrain_changes: likewise.
    """

    num_images: int
    image_shape: tuple[int, int, int]
    search_recipe: str
    retrain_recipe: str
    steps: int
    rounds: int
    repetitions: int
    search_changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    retrain_changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_digits = partial(
    Setting,
    image_shape=(8, 8, 1),
    search_recipe="digits.toml",
    retrain_recipe="retrain_digits.toml",
)
_cifar10 = partial(
    Setting,
    num_images=50_000,
    image_shape=(32, 32, 3),
    search_recipe="alpha_adarts_cifar10.toml",
    retrain_recipe="retrain_alpha_adarts_cifar10.toml",
)


def _size(init_channels: int, num_cells: int, **others: Any) -> dict[str, Any]:
    network = {
        "network.init_channels": init_channels,
        "network.num_cells": num_cells,
    }
    return network | others


SETTINGS = {
    # only to see whether a benchmark runs
    "tiny": _digits(
        num_images=64,
        steps=2,
        rounds=1,
        repetitions=1,
        search_changes=_size(4, 3, batch_size=4),
        retrain_changes=_size(4, 3, batch_size=4, genotype="alpha_adarts"),
    ),
    "digits": _digits(
        num_images=1500,
        steps=10,
        rounds=5,
        repetitions=1,
        retrain_changes={"genotype": "alpha_adarts"},
    ),
    "small": _cifar10(
        steps=3,
        rounds=5,
        repetitions=1,
        search_changes=_size(8, 4, batch_size=32),
        retrain_changes=_size(16, 8, batch_size=32),
    ),
    "full": _cifar10(steps=2, rounds=3, repetitions=1),
}


@dataclasses.dataclass(frozen=True)
class Engine:
    """A run before its first step.

    Attributes:
      setup: what it took to get here, and what was built.
      advance: takes a state (given away) and a number of steps; see ``engine.pacing``.
      training: first state.
      calls: the compiled program for each call of a step.
      unread_bytes: of the arguments of a call: the images outside its batch.
    """

    setup: Record
    advance: Callable[[Any, int], Any]
    training: Any
    calls: tuple[Any, ...]
    unread_bytes: int


def build_search(setting: Setting, *, is_warmup: bool = False) -> Engine:
    """Prepare a search as ``engine.search_loop`` does.

    Args:
      setting: recipe and images.
      is_warmup: the first epochs, in which the architecture rests.
    """
    import jax

    from adarts_jax.bilevel import unrolled
    from adarts_jax.config import SearchConfig
    from adarts_jax.engine import run_data, search_program, search_setup
    from adarts_jax.engine.search_problem import make_problem

    ours.begin()
    values = read_recipe(setting.search_recipe, setting.search_changes)
    config, images = SearchConfig(**values), random_images(setting)
    statistics = run_data.channel_statistics(config.data.normalization, images)
    parts = search_setup.make_splits(config, images.labels)
    start = search_setup.Start(images, (parts,), statistics, {})
    problem = make_problem(config, start)
    data = search_program.put_data(start, jax.random.key(config.seed))
    watch = Stopwatch()
    training = ours.first_state(search_program.make_init(problem), data.key)
    setup = watch.read("init")
    program = search_program.compile_search(problem, training, data)
    number = 0 if is_warmup else config.warmup_epochs
    pace = search_setup.epoch_pace(config, number)
    phases = program.phases if pace.update_architecture else program.phases[-1:]
    has_own = {unrolled.PRODUCT: program.product}
    compiled = [has_own.get(n) or program.program for n in phases]
    return Engine(
        setup | _facts(compiled, problem.batching),
        program.advance(data, number, pace),
        training,
        tuple(each.call for each in compiled),
        _unread(data.images, config.batch_size),
    )


def build_retrain(setting: Setting) -> Engine:
    """Prepare a training of a derived network as ``engine.retrain_loop`` does."""
    import jax

    from adarts_jax.data import splits
    from adarts_jax.engine import (
        retrain_program,
        retrain_setup,
        run_data,
    )
    from adarts_jax.retrain_config import RetrainConfig

    ours.begin()
    values = read_recipe(setting.retrain_recipe, setting.retrain_changes)
    config = retrain_setup.resolve_genotype(RetrainConfig(**values))
    images = random_images(setting)
    trained, held_out = splits.hold_out(
        len(images), fraction=config.data.held_out_fraction, seed=0, limit=None
    )
    start = retrain_setup.Start(
        retrain_setup.make_network(config, NUM_CLASSES, setting.image_shape),
        images,
        None,
        trained,
        held_out,
        setting.image_shape,
        run_data.channel_statistics(config.data.normalization, images),
        {},
    )
    problem = retrain_program.make_problem(config, start)
    data = retrain_program.put_data(start, jax.random.key(config.seed))
    watch = Stopwatch()
    training = ours.first_state(retrain_program.make_init(problem), data.key)
    setup = watch.read("init")
    program = retrain_program.compile_retrain(problem, training, data)
    pace = retrain_setup.epoch_pace(config, config.epochs // 2)
    return Engine(
        setup | _facts([program.program], problem.batching),
        program.advance(data, config.epochs // 2, pace),
        training,
        (program.program.call,),
        _unread(data.images, config.batch_size),
    )


def _facts(programs: Sequence[Any], batching: Any) -> Record:
    """Return what is known of the programs of a step, before it runs."""
    different = list({id(program): program for program in programs}.values())
    return {
        **ours.about(),
        **ours.cost_of_compiling(different),
        "steps_per_epoch": batching.steps_per_epoch,
        "batch_size": batching.batch_size,
    }


class Stopwatch:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def read(self, name: str) -> Record:
        """Return both under this name."""
        return {
            f"{name}_seconds": time.perf_counter() - self._wall,
            f"{name}_cpu_seconds": time.process_time() - self._processor,
        }


def random_images(setting: Setting) -> Any:
    """Draw images and labels; as many of every class."""
    from adarts_jax.data.images import ImageData

    random = np.random.default_rng(0)
    shape = (setting.num_images, *setting.image_shape)
    return ImageData(
        random.integers(0, 256, shape, np.uint8),
        np.arange(setting.num_images, dtype=np.int32) % NUM_CLASSES,
        tuple(map(str, range(NUM_CLASSES))),
    )


def read_recipe(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Read a recipe of ``configs`` and change some fields."""
    from adarts_jax.cli import recipes

    values = recipes.read_recipe(CONFIGS / name)
    for field, value in changes.items():
        recipes.put(values, field, value)
    return values


def _unread(images: Any, batch_size: int) -> int:
    return images.nbytes - batch_size * images[0].nbytes
