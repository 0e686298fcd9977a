"""Program: PyTorch weights in, PyTorch weights out.

python -m adarts_jax.convert from-torch FILE.pt [--genotype NAME] --out MODEL_DIR
python -m adarts_jax.convert to-torch MODEL_DIR --out FILE.pt
"""

import json
import sys
from collections.abc import Sequence

from adarts_jax import cli
from adarts_jax.engine import convert_files
from adarts_jax.engine.verification import check_passed
from adarts_jax.errors import UserError, did_you_mean
from adarts_jax.model_options import FromTorchOptions, ToTorchOptions

_DIRECTIONS = {
    "from-torch": (FromTorchOptions, "file", convert_files.from_torch),
    "to-torch": (ToTorchOptions, "model_dir", convert_files.to_torch),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
      argv: arguments; None for those of the process.

    Returns:
      Exit status.
    """
    return cli.run_program(_convert, argv)


def _convert(argv: Sequence[str]) -> None:
    direction = argv[0] if argv else "--help"
    if direction in ("-h", "--help"):
        sys.stdout.write(f"{__doc__}\nEach direction explains its options: --help\n")
        return
    if direction not in _DIRECTIONS:
        raise UserError(
            f"the first argument is from-torch or to-torch, not {direction!r}"
            f"{did_you_mean(direction, _DIRECTIONS)}"
        )
    model, argument, run = _DIRECTIONS[direction]
    options, _ = cli.parse(
        model,
        argv[1:],
        program=f"adarts_jax.convert {direction}",
        positional=[argument],
        has_run_directory=False,
    )
    summary = run(options)
    verification = summary.pop("verification", None)
    if verification is not None:
        summary["verification"] = verification.record()
    sys.stdout.write(json.dumps(summary) + "\n")
    check_passed(verification)


if __name__ == "__main__":
    sys.exit(main())
