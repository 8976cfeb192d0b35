"""Training pairs: photographs and their bicubic reductions, held in memory as bytes of pixels.

A batch is a pure function of (seed, step), so a resumed run sees exactly what an uninterrupted one
would have seen and no sampler state has to be stored.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.pairs import Pair, Pixels, reduce, to_rgb
from dvmsr.paths import check_input, exists, is_dir, is_file, unreadable
from dvmsr.runtime.image_io import FORMATS, decode_image

NOT_FOR_TRAINING = {
    "holds reductions": r".*_LR(_.*)?|LRx?[2-8]?|X[2-8]",
    "is for validation": r".*_(valid|test)_.*|val1",
}
"""Names of folders in published data sets, as regular expressions without case: in DIV2K
DIV2K_train_LR_bicubic and DIV2K_valid_HR, in LSDIR X4 and val1."""


@dataclass(frozen=True)
class Source:
    """Where the bytes of one image are: a whole file, or a span of a tar archive."""

    path: Path
    name: str
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            DvmsrError: if its file cannot be read.
        """
        check_input(self.path)
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise unreadable(self.path, error) from None

    def __str__(self) -> str:
        return str(self.path) if self.path.name == self.name else f"{self.path}:{self.name}"


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """Every image in the given image files, folders (searched deeply) and uncompressed tar shards.

    A folder may hold shards too; hidden files and folders in it are passed over, as are, with a
    warning, the folders of DIV2K, Flickr2K, LSDIR and the like that hold reductions or are for
    validation (`NOT_FOR_TRAINING`). The order depends on names only, and what is found twice is
    taken once.

    Raises:
        UsageError: if a path is missing or unreadable as a shard, or nothing is found at all.
        DvmsrError: if a folder cannot be read.
    """
    found: dict[tuple[str, int], Source] = {}
    for path in paths:
        for source in _sources_at(path):
            found.setdefault((os.path.realpath(source.path), source.offset), source)
    if not found:
        places = ", ".join(map(str, paths))
        kinds = ", ".join(FORMATS)
        raise UsageError(f"no images in {places}; give folders or .tar shards of {kinds} files")
    return list(found.values())


def _sources_at(path: Path) -> Iterator[Source]:
    if is_dir(path):
        for child in sorted(_files_below(path)):
            if _is_image(child.name) or child.suffix.lower() == ".tar":
                yield from _sources_at(child)
    elif not exists(path):
        raise UsageError(f"{path} does not exist; give a folder of images or a .tar shard")
    elif path.suffix.lower() in FORMATS:
        yield Source(path, path.name)
    else:
        check_input(path)
        try:
            with tarfile.open(path, "r:") as archive:
                members = [member for member in archive if member.isfile()]
        except (tarfile.TarError, OSError) as error:
            raise UsageError(f"{path} is not an uncompressed tar archive ({error})") from None
        for member in sorted(members, key=lambda member: member.name):
            if _is_image(member.name.rpartition("/")[2]):
                yield Source(path, member.name, member.offset_data, member.size)


def _files_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise unreadable(Path(error.filename), error)

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if _is_wanted(Path(place, name))]
        yield from (path for name in files if is_file(path := Path(place, name)))


def _is_wanted(folder: Path) -> bool:
    if folder.name.startswith("."):
        return False
    for what, names in NOT_FOR_TRAINING.items():
        if re.fullmatch(names, folder.name, re.IGNORECASE):
            warnings.warn(
                f"{folder} {what}, it is left out; name it by itself to have it", stacklevel=2
            )
            return False
    return True


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in FORMATS and not name.startswith(".")


def load_pair(data: bytes, name: str, scale: int) -> Pair:
    """Decode a photograph and reduce it by `scale` as MATLAB does, rounded to uint8.

    Args:
        data: an image file.
        name: what messages call it.

    Raises:
        DvmsrError: if it is broken, has transparency or is smaller than one LR pixel.
    """
    return reduce(to_rgb(decode_image(io.BytesIO(data), name), name), scale, name)


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
        DvmsrError: if they do not fit into memory.
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
        self.names: list[str] = []
        digest = hashlib.sha256()
        small = 0
        side = patch * scale

        def load(source: Source) -> tuple[Pair, bytes] | str:
            try:
                data = source.read()
                pair = load_pair(data, str(source), scale)
            except DvmsrError as error:
                return str(error)
            return pair, hashlib.sha256(data).digest()

        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            for source, loaded in zip(sources, pool.map(load, sources), strict=True):
                progress()
                if isinstance(loaded, str):
                    report(f"left out: {loaded}")
                elif min(loaded[0].lr.shape[:2]) < patch:
                    small += 1
                else:
                    self.pairs.append(loaded[0])
                    self.names.append(str(source))
                    digest.update(loaded[1])
        except MemoryError:
            raise DvmsrError(
                f"the images do not fit into memory, only {len(self.pairs)} of {len(sources)} do; "
                "give fewer"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, what is not begun is not waited for
        if small:
            report(f"left out for being smaller than a patch ({side}x{side} pixels): {small}")
        if not self.pairs:
            raise UsageError(
                f"none of {len(sources)} images is readable and at least {side}x{side} pixels; "
                "lower --patch or give larger images"
            )
        self.fingerprint = digest.hexdigest()
        """Names the photographs in use: equal for equal files in equal order."""
        self._order_of: tuple[int, int] | None = None
        self._order = np.arange(0)

    def batch(self, seed: int, step: int, size: int) -> tuple[Pixels, Pixels]:
        """Patches for one step, cropped, turned and mirrored at random.

        Each pass over the photographs takes every one once, in an order of its own.

        Returns:
            LR (size, patch, patch, 3) and HR (size, scale*patch, scale*patch, 3), uint8.
        """
        rng = np.random.default_rng((seed, step))
        side = self.patch * self.scale
        lrs = np.empty((size, self.patch, self.patch, 3), np.uint8)
        hrs = np.empty((size, side, side, 3), np.uint8)
        for i in range(size):
            pair = self.pairs[self._photograph(seed, step * size + i)]
            top, left = (int(rng.integers(n - self.patch + 1)) for n in pair.lr.shape[:2])
            turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
            lr = _window(pair.lr, top, left, self.patch)
            hr = _window(pair.hr, top * self.scale, left * self.scale, side)
            lrs[i], hrs[i] = _turn(lr, turns, mirror), _turn(hr, turns, mirror)
        return lrs, hrs

    def files(self, seed: int, step: int, size: int) -> list[str]:
        """The names of the photographs in that batch."""
        return [self.names[self._photograph(seed, step * size + i)] for i in range(size)]

    def _photograph(self, seed: int, count: int) -> int:
        """Which one is taken after `count` others."""
        epoch, place = divmod(count, len(self.pairs))
        return int(self._permutation(seed, epoch)[place])

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
