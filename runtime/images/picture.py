"""A picture with all that its file holds: frames, timing, metadata."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from dvmsr.errors import DvmsrError
from dvmsr.runtime.images import frames
from dvmsr.runtime.images.annotations import annotated
from dvmsr.runtime.images.decode import decoding, normalise_frame
from dvmsr.runtime.images.encode import encode, is_soft
from dvmsr.runtime.images.formats import LOSSY, check_format
from dvmsr.runtime.images.metadata import (
    EMPTY,
    Metadata,
    read_metadata,
    says_more,
    tell_left_out,
)
from dvmsr.utils import signals
from dvmsr.utils.paths import check_input, unreadable

MOVING = ("GIF", "WEBP", "PNG", "AVIF")
"""Formats of animations."""
PAGED = ("TIFF",)
_SPLIT = "split it into single pictures to keep them"
_GIF_RESTORES_BACKGROUND = 2
_MOST_PLAYS = {"GIF": 65_536, "WEBP": 65_535, "AVIF": 0}
"""What formats hold; of AVIF, what Pillow writes."""
_APNG_REPLACES = {"disposal": 0, "blend": 0}


@dataclass(frozen=True)
class Timing:
    """How an animation plays."""

    durations: tuple[float, ...]
    """Of each frame, in milliseconds."""
    plays: int
    """How often; 0 for without end."""
    still: bool = False
    """Whether the first frame stands for the others where APNG is unknown, and does not move."""


@dataclass(frozen=True)
class Header:
    """What is known of a frame or page before it is decoded; sizes in pixels."""

    height: int
    width: int
    frames: int
    """In the file."""
    moving: bool
    """Whether they are an animation, not pages."""


@dataclass(frozen=True)
class Picture:
    """Frames are upright and of mode RGB, L, RGBA or LA, all of one size but for pages."""

    frames: tuple[Image.Image, ...]
    metadata: Metadata = EMPTY
    timing: Timing | None = None
    """Of an animation."""
    soft: bool = False
    """Whether a frame, before it was enlarged, had half transparency."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame."""
        return self.frames[0].size

    def mapped(self, enlarge: Callable[[Image.Image], Image.Image]) -> Picture:
        """With every frame enlarged."""
        return replace(self, frames=tuple(enlarge(frame) for frame in self.frames))


def read_picture(path: Path, check: Callable[[Header], None], srgb: bool = False) -> Picture:
    """Read a file of one of `formats.FORMATS`; see `decode_picture`.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it cannot be read, or as `decode_picture`.
    """
    check_input(path)
    try:
        with path.open("rb") as file:
            return decode_picture(file, str(path), check, srgb)
    except OSError as error:
        raise unreadable(path, error) from None


def decode_picture(
    file: BinaryIO, name: str, check: Callable[[Header], None], srgb: bool = False
) -> Picture:
    """What a file of one of `formats.FORMATS` holds.

    Args:
        file: at its beginning.
        name: what messages call it.
        check: called before each frame is decoded; may raise.
        srgb: whether to convert what has another colour profile to sRGB.

    Raises:
        DvmsrError: if it is damaged, too large, or as `decode.normalise`.
        OSError: if the file cannot be read.
    """
    with decoding(file, name) as image:
        further = getattr(image, "n_frames", 1) - 1 if image.format == "MPO" else 0
        if further > 0:
            warnings.warn(
                f"{name}: its {further} further pictures, previews or depth maps, are left out",
                stacklevel=2,
            )
        numbers = frames.numbers(image, file)
        count, moving = len(numbers), image.format in MOVING
        remedy = _SPLIT if count > 1 else None
        made, durations, metadata, more = [], [], EMPTY, False
        profile = image.info.get("icc_profile")
        for number in numbers:
            signals.check()
            if number:
                image.seek(number)
            check(Header(image.height, image.width, count, moving))
            made.append(normalise_frame(image, name, srgb, remedy))
            durations.append(float(image.info.get("duration", 0)))
            if number == numbers[0]:
                metadata = read_metadata(image, file, name)
            elif not moving:
                more |= says_more(image)
        if made[0].info.get("icc_profile") != profile:
            metadata = metadata.without_colour_chunks()
        soft = any(map(is_soft, made))
        if count == 1 or not moving:
            if more:
                warnings.warn(
                    f"{name}: EXIF data and the like are kept of the first of its {count} pages "
                    "only",
                    stacklevel=2,
                )
            return Picture(tuple(made), metadata, soft=soft)
        timing = Timing(tuple(durations), _plays(image), bool(image.info.get("default_image")))
        return Picture(_alike(made), metadata, timing, soft)


def _plays(image: Image.Image) -> int:
    loop = image.info.get("loop")
    if image.format == "GIF":  # which counts repetitions, and says nothing of none
        return 1 if loop is None else loop and loop + 1
    return loop or 0


def _alike(frames: list[Image.Image]) -> tuple[Image.Image, ...]:
    """Frames of one mode."""
    modes = {frame.mode for frame in frames}
    if len(modes) == 1:
        return tuple(frames)
    mode = "RGB" if any(mode.startswith("RGB") for mode in modes) else "L"
    mode += "A" if any(mode.endswith("A") for mode in modes) else ""
    alike = []
    for frame in frames:
        converted = frame.convert(mode)
        converted.info = frame.info
        alike.append(converted)
    return tuple(alike)


def check_frames(header: Header, source: str, target: Path) -> None:
    """Whether the format that the result's name stands for can hold so many frames or pages.

    Raises:
        DvmsrError: if it cannot.
    """
    format = check_format(target)
    if header.frames == 1 or format in (MOVING if header.moving else PAGED):
        return
    if header.moving:
        what, remedy = "frames", "--format webp, gif, png or avif, or a video"
    else:
        what, remedy = "pages", "--format tif"
    raise DvmsrError(f"{source} has {header.frames} {what}, which {format} cannot hold; {remedy}")


def encode_picture(picture: Picture, path: Path, scale: int, quality: int | None = None) -> bytes:
    """The bytes of a file of the enlarged picture in the format of the path's extension.

    A JPEG that comes from one is compressed likewise, a WebP from a lossless one without loss; all
    else as by `encode.encode`. Warns of what the format cannot hold.

    Args:
        scale: by which it was enlarged.
        quality: from 1 to 100, of JPEG, WebP and AVIF; None for the above.
    """
    format = check_format(path)
    metadata = picture.metadata.enlarged(scale, picture.size)
    tell_left_out(path, format, metadata.left_out(format))
    metadata = metadata.for_format(format)
    options = metadata.save_options(format) | compression(metadata, format, quality)
    frames = picture.frames
    if picture.timing is not None:
        timing = picture.timing
        if timing.still and format != "PNG":
            warnings.warn(
                f"{path}: the still picture that stands for the animation is left out", stacklevel=2
            )
            frames = frames[1:]
            timing = replace(timing, durations=timing.durations[1:])
        if len(frames) > 1:
            options |= _animation(timing, format, path)
    if format == "GIF" and picture.soft:
        warnings.warn(f"{path}: GIF holds no half transparency, which is cut at half", stacklevel=2)
    first, *more = frames
    return annotated(encode(first, path, more, **options), format, metadata)


def compression(metadata: Metadata, format: str, quality: int | None) -> dict[str, Any]:
    """What Pillow's `save` takes for it; see `encode_picture`."""
    if quality is not None and format in LOSSY:
        sampling = {"subsampling": metadata.jpeg.sampling} if metadata.jpeg else {}
        return {"quality": quality, **(sampling if format == "JPEG" else {})}
    if format == "JPEG" and metadata.jpeg is not None:
        return metadata.jpeg.save_options()
    if format == "WEBP" and metadata.lossless:
        return {"lossless": True, "exact": True, "quality": 80}
    return {}


def _animation(timing: Timing, format: str, path: Path) -> dict[str, Any]:
    """What Pillow's `save` takes for it; warns if the format cannot play it so often."""
    most = _MOST_PLAYS.get(format)
    if most is not None and timing.plays > most:
        played = f"at most {most} times" if most else "without end"
        warnings.warn(
            f"{path}: plays {played}, not {timing.plays} times, as {format} holds no more",
            stacklevel=3,
        )
        timing = replace(timing, plays=most)
    durations: list[Any] = list(timing.durations)
    options: dict[str, Any] = {"duration": durations, "loop": timing.plays}
    if format == "GIF":
        options["disposal"] = _GIF_RESTORES_BACKGROUND
        if timing.plays == 1:
            del options["loop"]
        elif timing.plays > 1:
            options["loop"] = timing.plays - 1
    elif format == "PNG":
        options |= _APNG_REPLACES
        options["default_image"] = timing.still
        if timing.still:
            options["duration"] = durations[1:]
    else:
        options["duration"] = [round(duration) for duration in durations]
    if format == "AVIF":
        del options["loop"]
    return options
