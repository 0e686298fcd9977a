"""What an evaluation leaves in a folder: numbers, confusion and its picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adarts_jax.engine import files
from adarts_jax.engine.model_evaluation import Evaluation
from adarts_jax.errors import UserError
from adarts_jax.report.confusion_picture import draw_confusion

EVALUATION_FILE = "evaluation.json"
CONFUSION_STEM = "confusion"


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Check that an evaluation may be written to a folder.

    Raises:
      UserError: it holds one already, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={str(folder)!r} is a file; choose a folder")
    if (folder / EVALUATION_FILE).exists() and not overwrite:
        raise UserError(
            f"{str(folder)!r} holds an evaluation already; choose another folder, or "
            "--overwrite"
        )


def write_evaluation(
    folder: Path, record: Mapping[str, Any], evaluation: Evaluation
) -> None:
    """Write numbers, confusion and its picture; other files are left alone.

    Args:
      folder: made if missing.
      record: what goes into ``evaluation.json``.
      evaluation: whose confusion is written.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        confusion = {
            "class_names": evaluation.class_names,
            "rows": "label",
            "columns": "predicted class",
            "counts": evaluation.confusion.tolist(),
        }
        files.write_json(folder / f"{CONFUSION_STEM}.json", confusion)
        draw_confusion(
            evaluation.confusion, evaluation.class_names, folder / CONFUSION_STEM
        )
        files.write_json(folder / EVALUATION_FILE, record)
    except OSError as error:
        raise UserError(f"cannot write to {str(folder)!r}: {error}") from error
