"""Training pairs: photographs and their bicubic reductions, held in memory as bytes of pixels.

A batch is a pure function of (seed, step), so a resumed run sees exactly what an uninterrupted one
would have seen and no sampler state has to be stored.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dvmsr.errors import UsageError
from dvmsr.resize import imresize

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """Where the bytes of one image are: a whole file, or a span of a tar archive."""

    path: Path
    name: str
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def __str__(self) -> str:
        return str(self.path) if self.path.name == self.name else f"{self.path}:{self.name}"


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """Every image in the given image files, folders (searched deeply) and uncompressed tar shards.

    A folder may hold shards too. The order depends on names only.

    Raises:
        UsageError: if a path is missing or unreadable as a shard, or nothing is found at all.
    """
    sources = [source for path in paths for source in _sources_at(path)]
    if not sources:
        places = ", ".join(map(str, paths))
        kinds = ", ".join(SUFFIXES)
        raise UsageError(f"no images in {places}; give folders or .tar shards of {kinds} files")
    return sources


def _sources_at(path: Path) -> Iterator[Source]:
    if path.is_dir():
        for child in sorted(path.rglob("*")):
            if child.suffix.lower() in (*SUFFIXES, ".tar") and child.is_file():
                yield from _sources_at(child)
    elif not path.exists():
        raise UsageError(f"{path} does not exist; give a folder of images or a .tar shard")
    elif path.suffix.lower() in SUFFIXES:
        yield Source(path, path.name)
    else:
        try:
            with tarfile.open(path, "r:") as archive:
                members = [m for m in archive if m.isfile() and m.name.lower().endswith(SUFFIXES)]
        except (tarfile.TarError, OSError) as error:
            raise UsageError(f"{path} is not an uncompressed tar archive ({error})") from None
        for member in sorted(members, key=lambda m: m.name):
            yield Source(path, member.name, member.offset_data, member.size)


def decode(data: bytes) -> Pixels:
    """The image in an encoded file as (H, W, 3) uint8 RGB.

    Raises:
        ValueError, OSError: if it is broken, or deeper than 8 bits.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"pixels of more than 8 bits ({image.mode})")
            return np.array(image.convert("RGB"))
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None


def crop_to_multiple(image: Pixels, scale: int) -> Pixels:
    """Drop the last rows and columns so that height and width are multiples of `scale`."""
    height, width = (length - length % scale for length in image.shape[:2])
    return image[:height, :width]


@dataclass(frozen=True)
class Pair:
    """A photograph (scale*h, scale*w, 3) and its reduction (h, w, 3), both uint8 RGB."""

    hr: Pixels
    lr: Pixels


def load_pair(source: Source, scale: int) -> Pair:
    """Decode a photograph and reduce it by `scale` as MATLAB does, rounded to uint8.

    Raises:
        ValueError, OSError: if it is broken or smaller than one LR pixel.
    """
    hr = np.ascontiguousarray(crop_to_multiple(decode(source.read()), scale))
    if hr.size == 0:
        raise ValueError(f"smaller than {scale}x{scale} pixels")
    return Pair(hr, imresize(hr, 1 / scale))


class Patches:
    """Random patches of photographs that are all in memory.

    Args:
        sources: the photographs (`find_sources`); a broken or too small one is reported and left
            out.
        scale: upscaling factor.
        patch: side of an LR patch in pixels.
        report: takes one line of text per photograph left out.
        progress: called after each photograph.

    Raises:
        UsageError: if no photograph is left.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        scale: int,
        patch: int,
        report: Callable[[str], None],
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.scale = scale
        self.patch = patch
        self.pairs: list[Pair] = []
        digest = hashlib.sha256()
        small = 0

        def load(source: Source) -> Pair | str:
            try:
                return load_pair(source, scale)
            except (OSError, ValueError) as error:
                return str(error)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for source, pair in zip(sources, pool.map(load, sources), strict=True):
                progress()
                if isinstance(pair, str):
                    report(f"left out {source}: {pair}")
                elif min(pair.lr.shape[:2]) < patch:
                    small += 1
                else:
                    self.pairs.append(pair)
                    digest.update(f"{source.name} {pair.hr.shape}\n".encode())
        side = patch * scale
        if small:
            report(f"left out for being smaller than a patch ({side}x{side} pixels): {small}")
        if not self.pairs:
            raise UsageError(
                f"none of {len(sources)} images is readable and at least {side}x{side} pixels; "
                "lower --patch or give larger images"
            )
        self.fingerprint = digest.hexdigest()
        """Names the photographs in use: equal for equal names and sizes in equal order."""
        self._order_of: tuple[int, int] | None = None
        self._order = np.arange(0)

    def batch(self, seed: int, step: int, size: int) -> tuple[Pixels, Pixels]:
        """Patches for one step, cropped, turned and mirrored at random.

        Each pass over the photographs takes every one once, in an order of its own.

        Returns:
            LR (size, patch, patch, 3) and HR (size, scale*patch, scale*patch, 3), uint8.
        """
        rng = np.random.default_rng((seed, step))
        lrs, hrs = [], []
        for position in range(step * size, (step + 1) * size):
            epoch, place = divmod(position, len(self.pairs))
            pair = self.pairs[self._permutation(seed, epoch)[place]]
            top, left = (int(rng.integers(n - self.patch + 1)) for n in pair.lr.shape[:2])
            turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
            lr = _window(pair.lr, top, left, self.patch)
            hr = _window(pair.hr, top * self.scale, left * self.scale, self.patch * self.scale)
            lrs.append(_turn(lr, turns, mirror))
            hrs.append(_turn(hr, turns, mirror))
        return np.stack(lrs), np.stack(hrs)

    def _permutation(self, seed: int, epoch: int) -> NDArray[np.intp]:
        """The order of the photographs in one pass; only the latest is kept."""
        if self._order_of != (seed, epoch):
            # The third number keeps this stream apart from those of the steps.
            self._order = np.random.default_rng((seed, epoch, 1)).permutation(len(self.pairs))
            self._order_of = (seed, epoch)
        return self._order


def _window(image: Pixels, top: int, left: int, side: int) -> Pixels:
    return image[top : top + side, left : left + side]


def _turn(image: Pixels, turns: int, mirror: bool) -> Pixels:
    image = np.rot90(image, turns)
    return image[:, ::-1] if mirror else image
