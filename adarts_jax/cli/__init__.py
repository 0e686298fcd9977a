"""Command line of the programs: options made from a config model, errors in one line.

Every field of the model is an option ``--group.field``; a recipe file comes first, the
command line overrides it. Knows no particular model.

Differs from the design page, which planned tyro: its boxed messages of several lines
cannot keep the contract of one line ``error: ...``. So argparse writes ``--help`` and
pydantic judges values.
"""

from adarts_jax.cli.arguments import RunOptions as RunOptions
from adarts_jax.cli.arguments import parse as parse
from adarts_jax.cli.arguments import place as place
from adarts_jax.cli.programs import run_program as run_program
from adarts_jax.cli.recipes import read_recipe as read_recipe
