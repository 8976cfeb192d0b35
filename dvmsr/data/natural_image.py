"""Input for comparisons and timings where no picture is given."""

import numpy as np
from numpy.typing import NDArray

USUAL_SHAPE = (1, 96, 128)


def natural_image(shape: tuple[int | None, int | None, int | None]) -> NDArray[np.float32]:
    """Pictures with the statistics of photographs, always the same: (B, 3, H, W) in [0, 1].

    A 1/f amplitude spectrum with correlated colours, and two sharp edges.

    Args:
        shape: batch, height and width; those of `USUAL_SHAPE` where they are None.
    """
    batch, height, width = (size or usual for size, usual in zip(shape, USUAL_SHAPE, strict=True))
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1.0
    white = np.fft.rfft2(rng.standard_normal((batch, 3, height, width)))
    noise = np.fft.irfft2(white / frequency, s=(height, width))
    noise = 0.3 * noise + 0.7 * noise.mean(1, keepdims=True)
    image = 0.45 + 0.18 * noise / (noise.std() + 1e-6)
    y, x = np.mgrid[:height, :width]
    image[:, :, 3 * y + x > 1.5 * (height + width)] += 0.3
    image[:, :, (y - height / 3) ** 2 + (x - width / 3) ** 2 < (min(height, width) / 5) ** 2] -= 0.3
    return image.clip(0, 1).astype(np.float32)
