"""Pictures to planes and back on the emulated device: every type, against numpy."""

from __future__ import annotations

from ctypes import byref
from pathlib import Path

import numpy as np
import pytest

from dvmsr.errors import DvmsrError
from dvmsr.kernels import cuda
from dvmsr.runtime.backends.trt.cuda_memory import HostMemory, Stream
from dvmsr.runtime.backends.trt.half import narrowed, widened

SHAPE = (2, 5, 70)  # batch, height, width: more than a block, and no whole number of them


class Emulated:
    """Buffers for one picture on the emulated device, and both conversions."""

    def __init__(self, path: Path, pixels: str, dtype: str) -> None:
        self.library, self.dtype = cuda.Library(path), dtype
        self.stream = Stream(self.library)
        count = 3 * int(np.prod(SHAPE))
        self.pixels, self.planes = (HostMemory(self.library, 4 * count) for _ in range(2))
        self.flag = HostMemory(self.library, 4)
        self.picture = cuda.Picture(
            cuda.PIXELS[pixels], cuda.DTYPES[dtype], *SHAPE, self.pixels.pointer,
            self.planes.pointer,
        )  # fmt: skip
        b, h, w = SHAPE
        self.pixel_array = self.pixels.array(pixels, (b, h, w, 3))
        word = np.float32 if dtype == "float32" else np.uint16
        self.plane_array = self.planes.array(word, (b, 3, h, w))

    def to_planes(self) -> None:
        self.library.call("planes_from_pixels", byref(self.picture), self.stream.pointer)

    def to_pixels(self) -> bool:
        """Whether a value was not finite."""
        self.library.call(
            "pixels_from_planes", byref(self.picture), self.flag.pointer, self.stream.pointer
        )
        return bool(self.flag.array(np.int32, (1,))[0])


@pytest.mark.parametrize("dtype", cuda.DTYPES)
@pytest.mark.parametrize("pixels", cuda.PIXELS)
def test_there_and_back(cuda_on_host: Path, pixels: str, dtype: str) -> None:
    device = Emulated(cuda_on_host, pixels, dtype)
    rng = np.random.default_rng(0)
    white = {"uint8": 255, "uint16": 65535, "float32": 1}[pixels]
    values = rng.random(device.pixel_array.shape) * white
    device.pixel_array[...] = values if pixels == "float32" else np.round(values)
    unit = device.pixel_array.astype(np.float32) / np.float32(white)
    device.to_planes()
    expected = narrowed(np.ascontiguousarray(unit.transpose(0, 3, 1, 2)), dtype)
    np.testing.assert_array_equal(device.plane_array, expected)

    planes = rng.standard_normal(device.plane_array.shape).astype(np.float32) + 0.5
    device.plane_array[...] = narrowed(planes, dtype)
    assert not device.to_pixels()
    clipped = np.clip(widened(narrowed(planes, dtype), dtype), 0, 1).transpose(0, 2, 3, 1)
    scaled = clipped * np.float32(white)
    rounded = scaled if pixels == "float32" else np.rint(scaled)
    np.testing.assert_array_equal(device.pixel_array, rounded.astype(pixels))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(cuda_on_host: Path, bad: float) -> None:
    device = Emulated(cuda_on_host, "uint8", "float16")
    device.plane_array[...] = 0
    device.plane_array.view(np.float16)[1, 2, 4, 69] = bad
    assert device.to_pixels()
    assert device.pixel_array[1, 4, 69, 2] == (255 if bad == np.inf else 0)
    device.plane_array[...] = 0
    assert not device.to_pixels()


def test_refuses_what_is_empty(cuda_on_host: Path) -> None:
    device = Emulated(cuda_on_host, "uint8", "float32")
    device.picture.width = 0
    with pytest.raises(DvmsrError, match=r"failed in planes_from_pixels \(invalid argument\)"):
        device.to_planes()
