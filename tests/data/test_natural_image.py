"""The picture that comparisons take where none is given."""

from __future__ import annotations

import numpy as np

from dvmsr.data.natural_image import natural_image


def test_the_test_picture_is_a_picture() -> None:
    image = natural_image((2, 40, 56))
    assert image.shape == (2, 3, 40, 56)
    assert image.dtype == np.float32
    assert 0 <= image.min() < 0.2
    assert 0.8 < image.max() <= 1
    neighbours = np.corrcoef(image[..., 1:].ravel(), image[..., :-1].ravel())[0, 1]
    assert neighbours > 0.7
    assert np.array_equal(image, natural_image((2, 40, 56)))
    assert not np.array_equal(image[0], image[1])
    assert np.isfinite(natural_image((1, 1, 1))).all()
