"""Handwritten digits that come with scikit-learn: real images without a download."""

import numpy as np

from adarts_jax.data.images import ImageData
from adarts_jax.errors import UserError, did_you_mean

NUM_TRAIN = 1500
SPLITS = ("train", "test")


def load_digits(*, split: str) -> ImageData:
    """Load the 1797 grey 8x8 digits of scikit-learn.

    The collection has no split of its own. Here 1500 images are for training and 297
    for testing, the same ones on every machine: images are shuffled once (seed 0) and
    dealt so that both splits show each digit in its overall proportion.

    Args:
      split: ``"train"`` or ``"test"``.

    Returns:
      Images of shape (1500 or 297, 8, 8, 1); values 0..16 are scaled to 0..255.

    Raises:
      UserError: unknown split.

    References:
      E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
      Learning Repository, 1998; as shipped in ``sklearn.datasets``.
    """
    if split not in SPLITS:
        raise UserError(
            f"digits has no split {split!r}, only 'train' and 'test'"
            f"{did_you_mean(split, SPLITS)}"
        )
    from sklearn import datasets

    values, labels = map(np.asarray, datasets.load_digits(return_X_y=True))
    order = _stratified_order(labels)
    chosen = np.sort(order[:NUM_TRAIN] if split == "train" else order[NUM_TRAIN:])
    images = np.round(values[chosen] * (255 / 16)).astype(np.uint8)
    return ImageData(
        images.reshape(-1, 8, 8, 1),
        labels[chosen].astype(np.int32),
        tuple("0123456789"),
    )


def _stratified_order(labels: np.ndarray) -> np.ndarray:
    """Order examples so that every prefix holds each class in proportion."""
    # RandomState: NumPy promises never to change what it draws.
    shuffled = np.random.RandomState(0).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(place, kind="stable")]
