"""The images that two networks are compared on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dvmsr.data.natural_image import natural_image
from dvmsr.data.pairs import PairFiles, find_dataset, read_rgb
from dvmsr.runtime.images.arrays import to_planes
from dvmsr.runtime.storage.find import find_images
from dvmsr.utils.paths import is_dir


@dataclass(frozen=True)
class Sample:
    """An input, and what a perfect network would make of it where that is known."""

    name: str
    planes: NDArray[np.float32]
    """(B, 3, H, W) in [0, 1]."""
    truth: NDArray[np.uint8] | None
    """RGB (s*H, s*W, 3)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Batch, height and width."""
        batch, _, height, width = self.planes.shape
        return batch, height, width


Loader = Callable[[], Sample]


def find_samples(images: Sequence[Path], scale: int) -> list[Loader]:
    """The samples that files and folders stand for; each is read when it is called.

    A folder with `HR/` in it is a test set as `find_dataset` reads it: the reductions are the
    inputs, the originals the truth. All other files and folders hold inputs.

    Raises:
        DvmsrError: if there are none.
    """
    loaders: list[Loader] = []
    for path in images:
        if is_dir(path / "HR"):
            pairs = find_dataset(path, scale).pairs
            loaders += [partial(_pair_sample, files, scale) for files in pairs]
        else:
            loaders += [partial(_file_sample, file) for file in find_images(str(path))]
    return loaders


def synthetic_sample(shape: tuple[int | None, int | None, int | None]) -> Sample:
    """What `natural_image` makes of the shape."""
    return Sample("synthetic", natural_image(shape), None)


def _pair_sample(files: PairFiles, scale: int) -> Sample:
    pair = files.load(scale)
    return Sample(files.hr.name, to_planes(pair.lr), pair.hr)


def _file_sample(path: Path) -> Sample:
    return Sample(path.name, to_planes(read_rgb(path)), None)
