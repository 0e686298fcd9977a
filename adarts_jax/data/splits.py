"""Weight split and architecture split: two disjoint parts of the *training* set.

Indices only; no image is touched here, and no test set ever comes in.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from adarts_jax.errors import UserError, format_advice

FORMAT = "adarts-splits/1"

_NOT_SPLITS = (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


@dataclasses.dataclass(frozen=True, eq=False)
class SearchSplits:
    """Which training images train the weights and which the architecture.

    Attributes:
      num_examples: images of the training set the indices point into.
      weight_indices: int32, ascending.
      architecture_indices: int32, ascending; none of them a weight index.
    """

    num_examples: int
    weight_indices: np.ndarray
    architecture_indices: np.ndarray

    def __post_init__(self) -> None:
        """Check the promises above.

        Raises:
          UserError: an empty split, an index out of range or used twice.
        """
        both = np.concatenate([self.weight_indices, self.architecture_indices])
        if not (len(self.weight_indices) and len(self.architecture_indices)):
            raise UserError(
                f"{len(self.weight_indices)} images for the weights and "
                f"{len(self.architecture_indices)} for the architecture: each split "
                "needs some; use more images or another weight_fraction"
            )
        if both.min() < 0 or both.max() >= self.num_examples:
            raise UserError(
                f"split index {both.max() if both.min() >= 0 else both.min()} is out "
                f"of range for {self.num_examples} training images; use the splits "
                "with the data they were made for"
            )
        if len(np.unique(both)) != len(both):
            raise UserError(
                "an image appears twice in the weight and architecture splits; "
                "they must be disjoint"
            )

    @property
    def used(self) -> np.ndarray:
        """Indices of both splits, ascending."""
        return np.union1d(self.weight_indices, self.architecture_indices)

    def check_size(self, num_examples: int) -> None:
        """Check that these are splits of a training set of that size.

        Raises:
          UserError: they are of another one.
        """
        if num_examples != self.num_examples:
            raise UserError(
                f"the run started with other images ({self.num_examples}, now "
                f"{num_examples}); bring them back, or start a new run"
            )

    def save(self, path: Path) -> None:
        """Write the splits as JSON; the same splits give the same bytes."""
        record = {
            "format": FORMAT,
            "num_examples": self.num_examples,
            "weight_indices": self.weight_indices.tolist(),
            "architecture_indices": self.architecture_indices.tolist(),
        }
        path.write_text(json.dumps(record) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "SearchSplits":
        """Read splits written by `save`.

        Args:
          path: JSON file.

        Returns:
          The splits, checked again.

        Raises:
          UserError: no such file, or not a file of splits.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] != FORMAT:
                raise UserError(
                    f"{str(path)!r} has format {record['format']!r}, not {FORMAT!r}: "
                    f"{format_advice(record['format'], FORMAT)}"
                )
            return cls(
                num_examples=int(record["num_examples"]),
                weight_indices=_as_indices(record["weight_indices"]),
                architecture_indices=_as_indices(record["architecture_indices"]),
            )
        except UserError:
            raise
        except _NOT_SPLITS as error:
            raise UserError(
                f"{str(path)!r} is not a file of search splits "
                f"({type(error).__name__}); delete it, and --resume divides the images "
                "as the config says"
            ) from error


def search_splits(
    num_examples: int,
    *,
    weight_fraction: float = 0.5,
    seed: int | None,
    limit: int | None = None,
) -> SearchSplits:
    """Divide the training set between the weights and the architecture.

    With a seed the images are drawn at random: data sets ordered by class (every
    folder) would otherwise show the weights one half of the classes and the
    architecture the other. Not stratified: with hundreds of images per class the
    proportions come out even by themselves, and the papers do not stratify either.

    Differs from the original: with ``seed=None`` the division is positional as in the
    published code (the first part trains the weights); there it is the only way.

    Args:
      num_examples: images in the training set.
      weight_fraction: share of the images that train the weights, between 0 and 1.
      seed: seed of the drawing, 0 to 2**32 - 1; None for the positional division.
      limit: use only this many images (drawn with the seed, else the first ones), to
        cut a run down; None uses all. PC-DARTS on ImageNet is ``limit`` = 12.5 % of
        the images with ``weight_fraction=0.8``.

    Returns:
      Disjoint splits.

    Raises:
      UserError: a fraction or limit that leaves a split empty, or more than there is.

    References:
      Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, A.1.1.
    """
    if not 0 < weight_fraction < 1:
        raise UserError(
            f"weight_fraction={weight_fraction} must lie between 0 and 1, such as 0.5"
        )
    if limit is not None and not 2 <= limit <= num_examples:
        raise UserError(
            f"limit={limit} images: choose from 2 to {num_examples}, the size of the "
            "training set"
        )
    used = num_examples if limit is None else limit
    order = np.arange(num_examples, dtype=np.int32)
    if seed is not None:
        if not 0 <= seed < 2**32:
            raise UserError(f"seed={seed} must lie between 0 and {2**32 - 1}")
        # RandomState: NumPy promises never to change what it draws.
        order = np.random.RandomState(seed).permutation(order)
    boundary = int(weight_fraction * used)
    if not boundary:
        raise UserError(
            f"weight_fraction={weight_fraction} of {used} images leaves none for the "
            "weights, but each split needs some; make it larger, or use more images"
        )
    return SearchSplits(
        num_examples=num_examples,
        weight_indices=np.sort(order[:boundary]),
        architecture_indices=np.sort(order[boundary:used]),
    )


def hold_out(
    num_examples: int, *, fraction: float, seed: int, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a random part of the training set, to choose by it.

    Args:
      num_examples: images in the training set.
      fraction: share that is held out, 0 for none; at least one image otherwise.
      seed: seed of the drawing, 0 to 2**32 - 1.
      limit: use only this many images, drawn with the seed; None uses all.

    Returns:
      Indices to train on and indices held out, int32, ascending, disjoint.

    Raises:
      UserError: a limit that is more than there is, or nothing to train on.
    """
    if limit is not None and not 2 <= limit <= num_examples:
        raise UserError(
            f"num_examples={limit}: choose from 2 to {num_examples}, the size of the "
            "training set"
        )
    order = np.random.RandomState(seed).permutation(num_examples).astype(np.int32)
    used = num_examples if limit is None else limit
    held_out = max(1, round(fraction * used)) if fraction else 0
    if held_out >= used:
        raise UserError(
            f"held_out_fraction={fraction} of {used} images leaves none to train on; "
            "make it smaller"
        )
    kept, held = order[held_out:used], order[:held_out]
    return np.sort(kept), np.sort(held)


def balanced_splits(
    labels: np.ndarray, *, weight_fraction: float, fraction: float, seed: int
) -> SearchSplits:
    """Draw the same share of every class for both splits.

    Of a class of n images ``int(fraction * weight_fraction * n)`` train the weights and
    ``int(fraction * (1 - weight_fraction) * n)`` the architecture, but at least one
    each. PC-DARTS on ImageNet has 10 % and 2.5 %: ``fraction = 0.125``,
    ``weight_fraction = 0.8``.

    Args:
      labels: class of every training image.
      weight_fraction: share of the drawn images that train the weights.
      fraction: share of all images that is drawn, in (0, 1].
      seed: of the drawing, 0 to 2**32 - 1.

    Raises:
      UserError: a class has a single image.
    """
    random = np.random.RandomState(seed)
    shares = (fraction * weight_fraction, fraction * (1 - weight_fraction))
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for name in np.unique(labels):
        mine = random.permutation(np.flatnonzero(labels == name))
        # 0.125 * 0.8 is a little less than 0.1
        counts = [max(1, int(share * len(mine) + 1e-9)) for share in shares]
        if sum(counts) > len(mine):
            raise UserError(
                f"class {name} has {len(mine)} training image, too few for two splits; "
                "use another data.split or give it more"
            )
        parts[0].append(mine[: counts[0]])
        parts[1].append(mine[counts[0] : sum(counts)])
    weight, architecture = (np.sort(np.concatenate(part)) for part in parts)
    return SearchSplits(
        num_examples=len(labels),
        weight_indices=weight.astype(np.int32),
        architecture_indices=architecture.astype(np.int32),
    )


def _as_indices(values: list[int]) -> np.ndarray:
    if not isinstance(values, list) or any(type(value) is not int for value in values):
        raise TypeError("not a list of integers")
    return np.array(values, np.int32)
