import dataclasses

import numpy as np
import pytest

from adarts_jax.data import images
from adarts_jax.errors import UserError


def make(labels=(0, 1, 1), class_names=("cat", "dog"), dtype="uint8"):
    pixels = np.arange(3 * 4 * 5 * 3).reshape(3, 4, 5, 3).astype(dtype)
    return images.ImageData(pixels, np.array(labels, np.int32), class_names)


def test_properties():
    data = make()
    assert len(data) == 3
    assert data.num_classes == 2
    assert data.image_shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: make(dtype="float32"), "expected uint8"),
        (lambda: make(labels=(0, 1)), "one per image"),
        (lambda: make(labels=(0, 2, 5)), r"label 2 of image 1 .*0 to 1 \(2 such"),
        (lambda: make(labels=(0, 1, -1)), "label -1 of image 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(build, message):
    with pytest.raises(UserError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_fingerprint_sees_every_part():
    data = make()
    print_ = images.fingerprint(data)
    assert print_ == images.fingerprint(make())
    brighter = data.images.copy()
    brighter[2, 3, 4, 2] ^= 1
    others = [
        dataclasses.replace(data, images=brighter),
        dataclasses.replace(data, images=data.images.reshape(3, 5, 4, 3)),
        make(labels=(1, 1, 1)),
        make(class_names=("cat", "fox")),
    ]
    assert len({print_, *map(images.fingerprint, others)}) == 5
    fortran = dataclasses.replace(data, images=np.asfortranarray(data.images))
    assert images.fingerprint(fortran) == print_


def test_one_class_or_no_image_is_refused():
    images.check_classes(make(), "pets")
    with pytest.raises(UserError, match=r"pets has one class \('cat'\)"):
        images.check_classes(make(labels=(0, 0, 0), class_names=("cat",)), "pets")
    with pytest.raises(UserError, match="pets holds no image"):
        images.check_classes(
            images.ImageData(
                np.zeros((0, 4, 4, 1), np.uint8), np.zeros(0, np.int32), ("a", "b")
            ),
            "pets",
        )


def test_check_batch():
    images.check_batch(64, 64, "weight split")
    with pytest.raises(
        UserError,
        match="batch_size=64 is larger than the 63 images of the weight split",
    ):
        images.check_batch(63, 64, "weight split")


def test_image_size_must_survive_the_reductions():
    for height, width, reductions in ((4, 4, 2), (28, 8, 2), (224, 224, 5)):
        images.check_image_size(height, width, num_reductions=reductions)
    for height, width, reductions in ((3, 32, 2), (32, 3, 2), (31, 32, 5)):
        with pytest.raises(UserError, match=f"{height}x{width} pixels are too small"):
            images.check_image_size(height, width, num_reductions=reductions)
    for height, width in ((30, 32), (32, 30), (7, 7)):
        with pytest.raises(UserError, match="without remainder; set image_size=") as e:
            images.check_image_size(height, width)
        assert "multiple of 4" in str(e.value)
