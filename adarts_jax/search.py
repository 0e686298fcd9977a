"""Program: search an architecture. Without arguments, on built-in images of digits.

python -m adarts_jax.search [--config FILE.toml] [--out DIR] [--resume] ...
"""

import json
import sys
import types
from collections.abc import Sequence
from typing import Any

from adarts_jax import cli
from adarts_jax.config import SearchConfig
from adarts_jax.engine import compilation_cache, search_loop


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
      argv: arguments; None for those of the process.

    Returns:
      Exit status.
    """
    return cli.run_program(_search, argv)


def _search(argv: Sequence[str]) -> None:
    config, run = cli.parse(SearchConfig, argv, program="adarts_jax.search")
    compilation_cache.use_compilation_cache(run.compilation_cache)
    result = search_loop.search(
        config,
        out=run.out,
        resume=run.resume,
        overwrite=run.overwrite,
        recipe=run.recipe,
        command=run.command,
    )
    summary: dict[str, Any] = {
        "run_directory": str(result.run_directory),
        "genotype": str(result.run_directory / "genotype.json"),
    }
    for last in result.metrics[-1:]:  # none where nothing is trained
        names = ("weight/accuracy", "architecture/accuracy")
        summary |= {name: last[name] for name in names}
    sys.stdout.write(json.dumps(summary) + "\n")


class _CallableProgram(types.ModuleType):
    """This module, called: ``aj.search(config)`` runs a whole search."""

    def __call__(
        self, config: SearchConfig, **options: Any
    ) -> search_loop.SearchResult:
        """Run a search; see ``adarts_jax.engine.search_loop.search``."""
        return search_loop.search(config, **options)


# Package and function would otherwise fight for the name `adarts_jax.search`.
sys.modules[__name__].__class__ = _CallableProgram


if __name__ == "__main__":
    sys.exit(main())
