"""Program: apply a model to images.

python -m adarts_jax.predict MODEL_DIR IMAGES --out FILE.npz [--resize]
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp

from adarts_jax import cli
from adarts_jax.engine import compilation_cache, model_evaluation, prediction
from adarts_jax.engine.console import count_images
from adarts_jax.engine.evaluation import Normalization
from adarts_jax.model_directory import load_model
from adarts_jax.model_options import PredictOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
      argv: arguments; None for those of the process.

    Returns:
      Exit status.
    """
    return cli.run_program(_predict, argv)


def _predict(argv: Sequence[str]) -> None:
    options, run = cli.parse(
        PredictOptions,
        argv,
        program="adarts_jax.predict",
        positional=["model_dir", "images"],
        has_run_directory=False,
    )
    out = Path(options.out)
    prediction.check_output(out, overwrite=options.overwrite)
    compilation_cache.use_compilation_cache(run.compilation_cache)
    model = load_model(options.model_dir, dtype=jnp.dtype(options.dtype))
    spec = model.spec
    given = prediction.read_images(Path(options.images), spec, resize=options.resize)
    norm = Normalization(spec.normalization_mean, spec.normalization_std)
    with count_images(len(given.files)) as progress:
        logits, rate, _ = model_evaluation.run_model(
            model,
            given.images,
            None if given.is_normalised else norm,
            batch_size=options.batch_size,
            progress=progress,
        )
    prediction.write_predictions(out, logits, given.files, spec.class_names)
    summary = {
        "predictions": options.out,
        "num_images": len(logits),
        "images_per_second": round(rate, 1),
    }
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    sys.exit(main())
