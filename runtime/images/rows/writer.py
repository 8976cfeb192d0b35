"""Picture files written by rows, by libvips, which asks for the rows that it encodes.

It gets them as an uncompressed PNG over a pipe, encodes in a thread, and this thread stays free
for interrupts. PNG holds every mode that we write, and its decoder takes row after row.
"""

from __future__ import annotations

import os
import select
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import EXPECTED, DvmsrError, bare
from dvmsr.runtime.images.annotations import PNG_SIGNATURE, annotate_tiff, beginning, chunk
from dvmsr.runtime.images.exif import resolution
from dvmsr.runtime.images.jpeg import iptc_blocks
from dvmsr.runtime.images.metadata import EMPTY, Metadata
from dvmsr.runtime.images.rows.vips import import_vips

_COLOUR_TYPES = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}
"""PNG's number for a mode (PNG 1.2, IHDR)."""
_CLASSIC_TIFF = 4 * 10**9
"""Bytes of pixels above which a TIFF becomes a BigTIFF, whose offsets have 64 bits."""
_KEEP = {"xmp-data": 2, "iptc-data": 4, "icc-profile-data": 8}
"""VipsForeignKeep, by the name of what is kept; EXIF data, libvips would write anew."""
_MM_PER_INCH, _NO_DPI = 25.4, 72.0
"""libvips always states a resolution."""
_PATIENCE_MS = 200
_REASON = "system error: "
"""What libvips puts before the system's words for a failure."""

FORMATS_WRITTEN = ("PNG", "TIFF", "JPEG")


@contextmanager
def writing_rows(
    path: Path,
    format: str,
    name: str,
    height: int,
    width: int,
    mode: str,
    profile: bytes | None = None,
    deep: bool = False,
    metadata: Metadata = EMPTY,
    quality: int | None = None,
) -> Iterator[RowWriter]:
    """Something that takes a picture's rows; after the block the file is complete.

    If the block raises, what was written is cut off and of no use; see `atomic.replacing`.

    Args:
        path: the file.
        format: one of `FORMATS_WRITTEN`.
        name: what messages call the file.
        mode: RGB, L, RGBA or LA.
        profile: a colour profile that fits the mode.
        deep: whether rows are of 16 bits per channel, else 8.
        metadata: what else to tell, as far as libvips can in that format.
        quality: of a JPEG, from 1 to 100; None for that of the JPEG whose metadata it is, or 95.

    Raises:
        DvmsrError: if the file cannot be written; from the block, too.
        MissingComponentError: if libvips is missing.
    """
    save = _saving(path, format, profile, metadata, quality)
    writer = RowWriter(name, (height, width), mode, deep, save)
    try:
        writer.start()
        yield writer
        writer.finish()
    finally:
        writer.stop()
    writer.check()


class RowWriter:
    """What `writing_rows` gives: `write` is all that its block needs."""

    def __init__(
        self, name: str, size: tuple[int, int], mode: str, deep: bool, save: Callable[[Any], None]
    ) -> None:
        self._vips = import_vips()
        self._name, self._size, self._mode, self._save = name, size, mode, save
        self._depth = 16 if deep else 8
        self._failure: BaseException | None = None
        self._deflate = zlib.compressobj(0)
        self._outlet, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLOUT)
        self._thread = threading.Thread(target=self._encode)

    def start(self) -> None:
        """Begin the file."""
        self._thread.start()
        kind = (self._depth, _COLOUR_TYPES[self._mode], 0, 0, 0)
        header = struct.pack(">IIBBBBB", *self._size[::-1], *kind)
        self._put(PNG_SIGNATURE + chunk(b"IHDR", header))

    def write(self, pixels: NDArray[Any]) -> None:
        """Add rows (any number, W, bands) below those before, uint8 or, if deep, uint16.

        Raises:
            DvmsrError: if the file cannot be written.
        """
        rows = len(pixels)
        unfiltered = np.zeros((rows, 1), np.uint8)
        samples = pixels.astype(f">u{self._depth // 8}").reshape(rows, -1).view(np.uint8)
        lines = np.concatenate([unfiltered, samples], 1)
        self._put(chunk(b"IDAT", self._deflate.compress(lines.tobytes())))

    def finish(self) -> None:
        """After the last row."""
        self._put(chunk(b"IDAT", self._deflate.flush()) + chunk(b"IEND", b""))

    def stop(self) -> None:
        """Wait until all is written, or, before `finish`, for the failure that this makes."""
        os.close(self._pipe)
        if self._thread.ident is None:
            os.close(self._outlet)
        else:
            self._thread.join()

    def check(self) -> None:
        """Raise what the encoder failed with."""
        if self._failure is None:
            return
        if isinstance(self._failure, OSError):
            raise DvmsrError(
                f"{self._name} cannot be written ({self._failure.strerror}); make room or choose "
                "another place"
            )
        if not isinstance(self._failure, self._vips.Error):
            raise self._failure
        lines = str(self._failure.detail).splitlines()
        reasons = [line.removeprefix(_REASON) for line in lines if line.startswith(_REASON)]
        known = [f" ({reason})" for reason in reasons if "Unknown" not in reason][-1:]
        raise DvmsrError(
            f"{self._name} cannot be written{''.join(known)}; make room or choose another place"
        )

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if not self._thread.is_alive():
                self.check()
                return  # with the last row it had all that it needs
            if self._poll.poll(_PATIENCE_MS):
                try:
                    view = view[os.write(self._pipe, view) :]
                except BrokenPipeError:
                    self._thread.join()

    def _encode(self) -> None:
        """What the thread does."""
        try:
            source = self._vips.Source.new_from_descriptor(self._outlet)
            load = self._vips.Image.pngload_source
            self._save(load(source, access="sequential", fail_on="error"))
        except (self._vips.Error, *EXPECTED) as error:
            self._failure = bare(error)  # whose frames hold this object
        except BaseException as error:
            self._failure = error
        finally:
            os.close(self._outlet)


class _Output:
    """A file of one of `BEGINNINGS` that libvips writes and that gets what it cannot say."""

    def __init__(self, path: Path, format: str, metadata: Metadata) -> None:
        self.failure: OSError | None = None
        self._file = path.open("wb")
        self._told = partial(beginning, format=format, metadata=metadata)
        self._head: bytes | None = b""
        """What came so far; None once the beginning is written."""

    def write(self, data: bytes) -> int:
        """What libvips calls; 0 says that it failed."""
        try:
            if self._head is None:
                self._file.write(data)
            elif made := self._told(self._head + data):
                self._file.write(made)
                self._head = None
            else:
                self._head += data
        except OSError as error:
            self.failure = error
            return 0
        return len(data)

    def close(self) -> None:
        """After all that libvips wrote."""
        try:
            self._file.close()
        except OSError as error:
            self.failure = error
        if self.failure is not None:
            raise self.failure


def _saving(
    path: Path, format: str, profile: bytes | None, metadata: Metadata, quality: int | None
) -> Callable[[Any], None]:
    """What encodes a picture of libvips."""
    if format == "JPEG" and metadata.dpi and not metadata.exif:  # libvips writes no JFIF segment
        metadata = replace(metadata, exif=resolution(metadata.dpi))
    blobs = {
        name: data
        for name, data in [
            ("xmp-data", metadata.xmp if format == "JPEG" else b""),
            ("iptc-data", iptc_blocks(metadata.iptc) if format == "JPEG" else b""),
            ("icc-profile-data", profile),
        ]
        if data
    }
    keep = sum(_KEEP[name] for name in blobs)
    jpeg = metadata.jpeg
    if quality is None:
        quality = jpeg.quality if jpeg else 95

    def save(image: Any) -> None:
        across, down = metadata.dpi or (_NO_DPI, _NO_DPI)
        image = image.copy(xres=across / _MM_PER_INCH, yres=down / _MM_PER_INCH)
        vips = import_vips()
        for name, data in blobs.items():
            image.set_type(vips.GValue.blob_type, name, data)
        if format == "TIFF":
            size = image.width * image.height * image.bands * (2 if image.format == "ushort" else 1)
            compression = {"compression": "lzw", "predictor": "horizontal"}
            big = size > _CLASSIC_TIFF
            image.tiffsave(os.fspath(path), bigtiff=big, keep=keep, **compression)
            with path.open("r+b") as file:
                annotate_tiff(file, metadata)
            return
        output, target = _Output(path, format, metadata), vips.TargetCustom()
        target.on_write(output.write)
        try:
            if format == "PNG":
                image.pngsave_target(target, filter="all", keep=keep)
            else:
                sampling = "off" if jpeg is None or jpeg.sampling == 0 else "on"
                image.jpegsave_target(target, Q=quality, subsample_mode=sampling, keep=keep)
        finally:
            output.close()

    return save
