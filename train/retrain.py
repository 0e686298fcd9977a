"""Program: train the derived network of a genotype.

python -m train.retrain --genotype NAME_OR_FILE [--config FILE.toml] [--out DIR] ...
"""

import json
import sys
from collections.abc import Sequence

from adarts_jax import cli
from adarts_jax.engine import compilation_cache, retrain_loop
from adarts_jax.retrain_config import RetrainConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
      argv: arguments; None for those of the process.

    Returns:
      Exit status.
    """
    return cli.run_program(_retrain, argv)


def _retrain(argv: Sequence[str]) -> None:
    config, run = cli.parse(RetrainConfig, argv, program="train.retrain")
    compilation_cache.use_compilation_cache(run.compilation_cache)
    result = retrain_loop.retrain(
        config,
        out=run.out,
        resume=run.resume,
        overwrite=run.overwrite,
        recipe=run.recipe,
        command=run.command,
    )
    place = {"run_directory": str(result.run_directory)}
    sys.stdout.write(json.dumps(place | result.summary) + "\n")


if __name__ == "__main__":
    sys.exit(main())
