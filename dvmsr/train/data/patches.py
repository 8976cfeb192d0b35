"""Batches of patches of photographs.

A batch is a pure function of (seed, step), so a resumed run sees exactly what an uninterrupted one
would have seen and no sampler state has to be stored.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dvmsr.data.pairs import Pixels
from dvmsr.errors import UsageError
from dvmsr.train.data.photographs import Photograph, left_out

ALL = slice(None)


class Patches:
    """Random patches of photographs. Its methods may be called from several threads.

    Args:
        photographs: those smaller than a patch are left out.
        scale: upscaling factor, that of the photographs' reductions.
        patch: side of an LR patch in pixels.
        report: takes a line of text about what is left out.
        augment: whether patches are turned and mirrored.

    Raises:
        UsageError: if no photograph is left.
    """

    def __init__(
        self,
        photographs: Sequence[Photograph],
        scale: int,
        patch: int,
        report: Callable[[str], None],
        augment: bool = True,
    ) -> None:
        self.scale = scale
        self.augment = augment
        self.patch = patch
        self.photographs = [each for each in photographs if min(each.size) >= patch]
        side = patch * scale
        if small := len(photographs) - len(self.photographs):
            report(left_out(f"{small} for being smaller than a patch ({side}x{side} pixels)"))
        if not self.photographs:
            raise UsageError(
                f"no image is readable and at least {side}x{side} pixels; "
                "lower --patch or give larger images"
            )
        digests = b"".join(each.digest for each in self.photographs)
        self.fingerprint = hashlib.sha256(digests).hexdigest()
        """Names the photographs in use: equal for equal files in equal order."""

    def batch(self, seed: int, step: int, size: int, part: slice = ALL) -> tuple[Pixels, Pixels]:
        """Patches for one step, cropped and, unless told otherwise, turned and mirrored at random.

        Each pass over the photographs takes every one once, in an order of its own.

        Args:
            size: of the whole batch.
            part: which of its patches to make; they are the same whatever the part.

        Returns:
            LR (b, patch, patch, 3) and HR (b, scale*patch, scale*patch, 3), uint8.

        Raises:
            DvmsrError: if a photograph cannot be had any more.
        """
        rng = np.random.default_rng((seed, step))
        chosen = range(size)[part]
        side = self.patch * self.scale
        lrs = np.empty((len(chosen), self.patch, self.patch, 3), np.uint8)
        hrs = np.empty((len(chosen), side, side, 3), np.uint8)
        for i in range(chosen.stop):
            photograph = self._photograph(seed, step * size + i)
            top, left = (int(rng.integers(n - self.patch + 1)) for n in photograph.size)
            turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
            if i < chosen.start:
                continue
            if not self.augment:
                turns, mirror = 0, False
            pair, place = photograph.pixels(), i - chosen.start
            lr = _window(pair.lr, top, left, self.patch)
            hr = _window(pair.hr, top * self.scale, left * self.scale, side)
            lrs[place], hrs[place] = _turn(lr, turns, mirror), _turn(hr, turns, mirror)
        return lrs, hrs

    def files(self, seed: int, step: int, size: int) -> list[str]:
        """The names of the photographs in that batch."""
        return [self._photograph(seed, step * size + i).name for i in range(size)]

    def _photograph(self, seed: int, count: int) -> Photograph:
        """The one that is taken after `count` others."""
        epoch, place = divmod(count, len(self.photographs))
        return self.photographs[_order(seed, epoch, len(self.photographs))[place]]


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.intp]:
    """The order of the photographs in one pass."""
    # The third number keeps this stream apart from those of the steps.
    return np.random.default_rng((seed, epoch, 1)).permutation(count)


def _window(image: Pixels, top: int, left: int, side: int) -> Pixels:
    return image[top : top + side, left : left + side]


def _turn(image: Pixels, turns: int, mirror: bool) -> Pixels:
    image = np.rot90(image, turns)
    return image[:, ::-1] if mirror else image
