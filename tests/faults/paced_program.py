"""A real program that stops and speaks after every step, to be hit at a known moment.

python paced_program.py search|fake|retrain [--option value ...]; ``fake`` is the search
on a linear classifier.
"""

import sys

import pytest

import adarts_jax.search
from adarts_jax.engine import console, pacing
from train import retrain


def main() -> int:
    kind, *argv = sys.argv[1:]
    console.LINE_INTERVAL = 0.0
    pacing.CHUNK_SECONDS = 0.0
    if kind == "fake":
        import fake_search

        fake_search.install(pytest.MonkeyPatch())
    return (retrain if kind == "retrain" else adarts_jax.search).main(argv)


if __name__ == "__main__":
    sys.exit(main())
