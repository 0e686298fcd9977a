"""``python -m adarts_jax.report RUN_DIR``: draw the pictures, write ``report.html``."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from adarts_jax.cli import place, run_program
from adarts_jax.errors import UserError


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing a usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def report(argv: Sequence[str]) -> None:
    """Write the pictures and the page; print the path of the page."""
    parser = _Parser(
        prog="python -m adarts_jax.report",
        description="Redraw the pictures of a run and write its report.html. The run "
        "may be finished or not.",
    )
    parser.add_argument(
        "run_dir",
        metavar="RUN_DIR",
        type=place,
        help="the --out of a search or a training run",
    )
    run_dir = parser.parse_args(argv).run_dir
    # late: --help and wrong arguments need not wait for matplotlib
    from adarts_jax.report.page import report_run

    sys.stdout.write(f"{report_run(run_dir)}\n")


if __name__ == "__main__":
    raise SystemExit(run_program(report))
