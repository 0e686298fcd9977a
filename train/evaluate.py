"""Program: judge a model by a labelled split.

python -m train.evaluate MODEL_DIR [--data.source ...] [--split test] [--out DIR]
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp

from adarts_jax import cli
from adarts_jax.engine import compilation_cache, evaluation_files, model_evaluation
from adarts_jax.engine.console import count_images
from adarts_jax.model_directory import load_model
from adarts_jax.model_options import EvaluateOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
      argv: arguments; None for those of the process.

    Returns:
      Exit status.
    """
    return cli.run_program(_evaluate, argv)


def _evaluate(argv: Sequence[str]) -> None:
    options, run = cli.parse(
        EvaluateOptions,
        argv,
        program="train.evaluate",
        positional=["model_dir"],
        has_run_directory=False,
    )
    out = None if options.out is None else Path(options.out)
    if out is not None:
        evaluation_files.check_folder(out, overwrite=options.overwrite)
    compilation_cache.use_compilation_cache(run.compilation_cache)
    model = load_model(options.model_dir, dtype=jnp.dtype(options.dtype))
    data = model_evaluation.load_images(
        model.spec, split=options.split, **options.data.model_dump()
    )
    with count_images(len(data)) as progress:
        found = model_evaluation.evaluate_model(
            model, data, batch_size=options.batch_size, progress=progress
        )
    record = {
        "model": options.model_dir,
        "split": options.split,
        **found.record(),
    }
    if out is not None:
        evaluation_files.write_evaluation(out, record, found)
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    sys.exit(main())
