"""`dvmsr-infer -`: an image from standard input, or its result to standard output."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

from PIL import Image

from dvmsr.errors import UsageError
from dvmsr.runtime.images.codec import FORMATS, check_format
from dvmsr.runtime.images.picture import decode_picture, encode_picture
from dvmsr.runtime.infer.options import Options
from dvmsr.runtime.infer.results import Result, result_of
from dvmsr.runtime.infer.steps import checking, enlarge
from dvmsr.runtime.storage.places import Remote, place
from dvmsr.runtime.upscaler import Upscaler
from dvmsr.utils.atomic import check_target, write_atomically
from dvmsr.utils.paths import check_input, unreadable

STREAM = "-"


def enlarge_stream(upscaler: Upscaler, source: str, options: Options) -> Result:
    """Read, enlarge and write one image.

    Args:
        source: a file, or `-`.
        options: their output is a file, or `-` or None, which mean standard output.

    Raises:
        UsageError: if a stream is a terminal, or options do not fit.
        DvmsrError: if anything else fails.
    """
    output, extension, overwrite = options.output, options.extension, options.overwrite
    to_stream = output in (None, STREAM)
    target = _file(output or STREAM)
    if not to_stream:
        if extension is not None:
            raise UsageError(f"{output} names the format already; leave out --format")
        check_format(target)
        check_target(target, overwrite)
    elif sys.stdout is None:
        raise UsageError("standard output is closed; name a file with -o or send it to one")
    elif sys.stdout.isatty():
        raise UsageError("standard output is a terminal; name a file with -o or send it to one")
    data, name = _read(source)
    if to_stream:
        target = Path("standard output" + (extension or _extension(data)))

    check = checking(upscaler, name, target)
    picture = decode_picture(io.BytesIO(data), name, check, options.to_srgb)
    start = time.perf_counter()
    enlarged = enlarge(upscaler, picture)
    seconds = time.perf_counter() - start
    encoded = encode_picture(enlarged, target, upscaler.scale, options.quality)
    if to_stream:
        sys.stdout.buffer.write(encoded)
        sys.stdout.buffer.flush()
    else:
        write_atomically(target, encoded, overwrite)
    written = STREAM if to_stream else str(target)
    sizes, frames = (picture.size, enlarged.size), len(picture.frames)
    return result_of(upscaler, source, written, *sizes, seconds, frames=frames)


def _read(source: str) -> tuple[bytes, str]:
    """An encoded image, and what messages call it."""
    if source == STREAM:
        if sys.stdin is None:
            raise UsageError("standard input is closed; name an image or send one there")
        if sys.stdin.isatty():
            raise UsageError("standard input is a terminal; name an image or send one there")
        return sys.stdin.buffer.read(), "standard input"
    path = _file(source)
    check_input(path)
    try:
        return path.read_bytes(), source
    except OSError as error:
        raise unreadable(path, error) from None


def _file(name: str) -> Path:
    found = place(name)
    if isinstance(found, Remote):
        raise UsageError(f"- goes with files here; leave it out, or name one in place of {found}")
    return found


def _extension(data: bytes) -> str:
    """Of the format that encoded bytes are in; .png if they are in none of ours."""
    try:
        with Image.open(io.BytesIO(data), formats=sorted(set(FORMATS.values()))) as image:
            found = image.format
    except Exception:  # what is wrong with it is told when it is decoded
        found = None
    return next((end for end, format in FORMATS.items() if format == found), ".png")
