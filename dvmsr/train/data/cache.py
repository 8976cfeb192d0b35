"""Decoded photographs in a file that is mapped into memory: for more of them than memory holds,
and for several processes of a machine to share.

    CACHE/x4-KEY/pixels       of each photograph (4h, 4w, 3) and its reduction (h, w, 3)
    CACHE/x4-KEY/index.json   their sizes; it is written last, so without it there is no cache

KEY stands for what is in the image files: other images have another one.
"""

import hashlib
import io
import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from dvmsr.data.pairs import Pair, Pixels
from dvmsr.errors import DvmsrError
from dvmsr.runtime.images.decode import decode_image
from dvmsr.train.data.photographs import Photograph, in_threads, left_out, load_pair
from dvmsr.train.data.sources import Source
from dvmsr.utils.atomic import replacing, write_atomically
from dvmsr.utils.json_text import parse
from dvmsr.utils.locks import hold
from dvmsr.utils.paths import is_file

PIXELS, INDEX, LOCK = "pixels", "index.json", ".lock"
FORMAT = 1
GIB = 2**30
NAME = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands for an image's name, which may change, in what the index tells of it."""


class PixelCache:
    """The pixels of photographs below a folder.

    Args:
        folder: made by `make` if need be; it may hold the pixels of other images, too.
        sources: the photographs. All are read, none is decoded.
        scale: upscaling factor.
        report: takes one line of text per photograph that cannot be read, and is left out.
        progress: called after each photograph.
    """

    def __init__(
        self,
        folder: Path,
        sources: Sequence[Source],
        scale: int,
        report: Callable[[str], None],
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.scale, self.report = folder, scale, report
        self.sources: list[Source] = []
        self.digests: list[bytes] = []
        """SHA-256 of each file."""
        self.size = 0
        """Bytes of all pixels, from above."""
        with closing(in_threads(_examine, sources)) as examined:
            for source, found in zip(sources, examined, strict=True):
                progress()
                if isinstance(found, DvmsrError):
                    report(left_out(found))
                    continue
                digest, area = found
                self.sources.append(source)
                self.digests.append(digest)
                self.size += 3 * area + 3 * area // scale**2
        key = hashlib.sha256(b"".join(self.digests)).hexdigest()[:16]
        self.place = folder / f"x{scale}-{key}"

    def make(self, progress: Callable[[], None] = lambda: None) -> None:
        """Decode the photographs, unless that was done before. Of several processes one does, and
        the others wait; where it fails or dies, the next one tries.

        Args:
            progress: called after each photograph.

        Raises:
            DvmsrError: if there is no room, the folder cannot be written to, or an image changes
                meanwhile.
        """
        if is_file(self.place / INDEX):
            return
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            lock = (self.place / LOCK).open("w")
        except OSError as error:
            raise DvmsrError(
                f"{self.place} cannot be written to ({error.strerror}); choose another --cache"
            ) from None
        with lock:
            waiting = f"another process decodes into {self.place}; waiting for it"
            hold(lock, lambda: self.report(waiting))
            if is_file(self.place / INDEX):
                return
            for left_by_the_dead in self.place.glob(".dvmsr-*.tmp"):
                left_by_the_dead.unlink()
            free = shutil.disk_usage(self.place).free
            if free < self.size:
                raise DvmsrError(
                    f"{self.folder} has {free / GIB:.2f} GiB free, but the pixels of the images "
                    f"need {self.size / GIB:.2f}; make room or choose another --cache"
                )
            self.report(f"decoding {len(self.sources)} images into {self.place}")
            images = self._write_pixels(progress)
            index = json.dumps({"format": FORMAT, "images": images}).encode()
            write_atomically(self.place / INDEX, memoryview(index), overwrite=True)

    def photographs(self) -> list[Photograph]:
        """What `make` has made, mapped and read-only; what is unusable is reported.

        Raises:
            DvmsrError: if it is damaged, as do the photographs' `pixels` when they notice.
        """
        try:
            index = parse((self.place / INDEX).read_bytes())
            images: list[dict[str, Any]] = index["images"]
            lengths = [self._length(*image["size"]) for image in images if "size" in image]
            stored = (self.place / PIXELS).stat().st_size
            sound = index["format"] == FORMAT and len(images) == len(self.sources)
            if not sound or sum(lengths) != stored:
                raise self._damaged()
            pixels = (
                np.memmap(self.place / PIXELS, np.uint8, "r") if stored else np.empty(0, np.uint8)
            )
        except (ValueError, TypeError, KeyError, OSError):
            raise self._damaged() from None
        photographs, end = [], 0
        for source, digest, image in zip(self.sources, self.digests, images, strict=True):
            if "size" not in image:
                self.report(left_out(image["unusable"].replace(NAME, str(source))))
                continue
            height, width = image["size"]
            begin, end = end, end + self._length(height, width)
            data: Pixels = np.asarray(pixels[begin:end])
            stored_pair = _Stored(data, height, width, self.scale, image["crc32"], self._damaged)
            photographs.append(Photograph(str(source), digest, (height, width), stored_pair))
        return photographs

    def _length(self, height: int, width: int) -> int:
        """Bytes of a photograph with its reduction, which has that size."""
        return 3 * height * width * (self.scale**2 + 1)

    def _write_pixels(self, progress: Callable[[], None]) -> list[dict[str, Any]]:
        images: list[dict[str, Any]] = []
        order = list(zip(self.sources, self.digests, strict=True))
        with (
            replacing(self.place / PIXELS, overwrite=True) as temporary,
            temporary.open("wb") as file,
            closing(in_threads(self._load, order)) as loaded,
        ):
            for each in loaded:
                progress()
                if isinstance(each, str):
                    images.append({"unusable": each})
                    continue
                checksum = 0
                for image in (each.hr, each.lr):
                    data = np.ascontiguousarray(image).data
                    checksum = zlib.crc32(data, checksum)
                    file.write(data)
                images.append({"size": each.lr.shape[:2], "crc32": checksum})
        return images

    def _load(self, one: tuple[Source, bytes]) -> Pair | str:
        """The pixels, or why they are unusable."""
        source, digest = one
        data = source.read()
        if hashlib.sha256(data).digest() != digest:
            raise DvmsrError(f"{source} changed while it was read; start again")
        try:
            return load_pair(data, str(source), self.scale)
        except DvmsrError as error:
            return str(error).replace(str(source), NAME)

    def _damaged(self) -> DvmsrError:
        return DvmsrError(f"{self.place} is damaged; remove it, and it is made again")


class _Stored:
    """One photograph's pixels; their checksum is compared when they are first asked for."""

    def __init__(
        self,
        data: Pixels,
        height: int,
        width: int,
        scale: int,
        checksum: int,
        damaged: Callable[[], DvmsrError],
    ) -> None:
        hr, lr = np.split(data, [3 * height * width * scale**2])
        self.pair = Pair(hr.reshape(height * scale, width * scale, 3), lr.reshape(height, width, 3))
        self.data, self.checksum, self.damaged = data, checksum, damaged
        self.is_checked = False

    def __call__(self) -> Pair:
        if not self.is_checked:
            if zlib.crc32(self.data.data) != self.checksum:
                raise self.damaged()
            self.is_checked = True
        return self.pair


def _examine(source: Source) -> tuple[bytes, int] | DvmsrError:
    """SHA-256 of the file, and how many pixels its header tells of, 0 where it has none."""
    try:
        data = source.read()
    except DvmsrError as error:
        return error
    areas = []

    def note(height: int, width: int) -> None:
        areas.append(height * width)
        raise DvmsrError  # before anything is decoded

    with suppress(DvmsrError):
        decode_image(io.BytesIO(data), str(source), note)
    return hashlib.sha256(data).digest(), sum(areas)
