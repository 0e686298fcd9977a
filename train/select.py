"""Program: train several genotypes briefly and keep the best on held-out images.

python -m train.select GENOTYPE... | FOLDER_OF_RUNS [--config FILE.toml] [--out DIR] ...
"""

import json
import sys
from collections.abc import Sequence

from adarts_jax import cli
from adarts_jax.engine import compilation_cache, genotype_selection
from adarts_jax.retrain_config import SelectConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
      argv: arguments; None for those of the process.

    Returns:
      Exit status.
    """
    return cli.run_program(_select, argv)


def _select(argv: Sequence[str]) -> None:
    config, run = cli.parse(
        SelectConfig, argv, program="train.select", positional=["genotypes"]
    )
    compilation_cache.use_compilation_cache(run.compilation_cache)
    result = genotype_selection.select(
        config,
        out=run.out,
        resume=run.resume,
        overwrite=run.overwrite,
        recipe=run.recipe,
        command=run.command,
    )
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    sys.exit(main())
