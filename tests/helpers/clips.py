"""Small videos made for tests, what is in a video, and its colours computed in FP64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

av: Any = pytest.importorskip("av", reason="needs PyAV (extra video)")

WIDTH, HEIGHT = 16, 12
MILLISECONDS = Fraction(1, 1000)
REGULAR = tuple(range(0, 12 * 40, 40))
VARIABLE = (0, 40, 80, 85, 86, 160, 400, 440, 480, 720, 1600, 1640)
"""In milliseconds."""
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


@dataclass(frozen=True)
class Tags:
    """Numbers of H.273; 2 is unspecified. Range 1 is limited, 2 full."""

    range: int = 1
    matrix: int = 2
    primaries: int = 2
    transfer: int = 2


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """RGB (H, W, 3), smooth, of different colours."""
    y, x = np.mgrid[:height, :width]
    channels = [
        128 + 100 * np.sin(x / 5 + number / 3),
        128 + 90 * np.cos(y / 4 - number / 5),
        128 + 80 * np.sin((x + y) / 7),
    ]
    return np.stack(channels, -1).astype(np.uint8)


def clip(
    path: Path | str,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Sequence[int] = REGULAR,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    tags: Tags | None = None,
    *,
    aspect: Fraction | None = None,
    rotation: int | None = None,
    sound: str | None = None,
    subtitles: bool = False,
    extras: bool = False,
    options: dict[str, str] | None = None,
) -> str:
    """Write a video.

    Args:
        times: of the frames, in milliseconds.
        size: width and height.
        sound: codec of a tone as long as the pictures.
        subtitles: whether there is a line of text.
        extras: a chapter, a title, a language and an attached file.
    """
    width, height = size
    tags = tags or Tags()
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, width=width, height=height, options=options or {})
        context = stream.codec_context
        context.pix_fmt, context.time_base = pixels, MILLISECONDS
        context.color_range, context.colorspace = tags.range, tags.matrix
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        tone = file.add_stream(sound, rate=48000) if sound else None
        text = file.add_mux_stream("subrip") if subtitles else None
        if text is not None:
            text.time_base = MILLISECONDS
        if extras:
            file.metadata["title"] = "A clip"
            stream.metadata["language"] = "deu"
            file.add_attachment("note.txt", "text/plain", b"attached")
            chapter = {"id": 1, "start": 0, "end": 250, "time_base": MILLISECONDS}
            file.set_chapters([{**chapter, "metadata": {"title": "One"}}])
        for number, pts in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = pts, MILLISECONDS
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if tone is not None:
            _write_tone(file, tone, times[-1] * 48)
        if text is not None:
            packet = av.Packet(b"Hello")
            packet.pts = packet.dts = 40
            packet.duration, packet.time_base, packet.stream = 100, MILLISECONDS, text
            file.mux(packet)
    return str(path)


def _write_tone(file: Any, stream: Any, samples: int) -> None:
    wave = 0.3 * np.sin(np.arange(samples) / 20).astype(np.float32)
    kind, dtype = ("fltp", np.float32) if stream.codec_context.name == "aac" else ("s16", np.int16)
    for start in range(0, samples, 960):
        part = wave[start : start + 960]
        part = part if dtype is np.float32 else (32767 * part).astype(dtype)
        both = np.stack([part, part]) if kind == "fltp" else np.repeat(part, 2)[None]
        frame = av.AudioFrame.from_ndarray(both, format=kind, layout="stereo")
        frame.sample_rate, frame.pts = 48000, start
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def video_frames(path: Path | str) -> list[Any]:
    """PyAV's frames."""
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def times(path: Path | str) -> list[Fraction]:
    """When each frame is shown, in seconds."""
    return [frame.pts * frame.time_base for frame in video_frames(path)]


def packets(path: Path | str, kind: str) -> list[tuple[bytes, Fraction, Fraction]]:
    """Content, time and duration of the packets of the first stream of a type."""
    with av.open(str(path)) as file:
        stream = next(stream for stream in file.streams if stream.type == kind)
        return [
            (bytes(packet), packet.pts * packet.time_base, packet.duration * packet.time_base)
            for packet in file.demux(stream)
            if packet.size
        ]


def planes(frame: Any) -> list[NDArray[Any]]:
    """The samples of a planar frame, in arrays of their own."""
    dtype = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    return [
        np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width].copy()
        for plane in frame.planes
    ]


def all_planes(path: Path | str) -> list[list[NDArray[Any]]]:
    """Those of every frame."""
    return [planes(frame) for frame in video_frames(path)]


def fp64_rgb(
    planes: Sequence[NDArray[Any]], bits: int, matrix: int, full: bool
) -> NDArray[np.float64]:
    """RGB (H, W, 3) in [0, 1] by the formulas of H.273, sample by sample."""
    height, width = planes[0].shape
    red, blue = LUMA_WEIGHTS[matrix]
    step = 2 ** (bits - 8)
    rgb = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            luma = planes[0][y, x] / (2**bits - 1) if full else (planes[0][y, x] / step - 16) / 219
            cb, cr = (
                (_chroma_at(plane, y, x, (height, width)) - 128 * step)
                / (2**bits - 1 if full else 224 * step)
                for plane in planes[1:]
            )
            r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
            rgb[y, x] = r, (luma - red * r - blue * b) / (1 - red - blue), b
    return np.clip(rgb, 0, 1)


def _chroma_at(plane: NDArray[Any], y: int, x: int, size: tuple[int, int]) -> float:
    """Between the samples, which lie at even columns and between two rows."""
    rows, columns = plane.shape
    place = [float(y), float(x)]
    if rows < size[0]:
        place[0] = (y - 0.5) / 2
    if columns < size[1]:
        place[1] = x / 2
    (top, v), (left, h) = (divmod(each, 1) for each in place)
    total = 0.0
    for row, vertical in ((top, 1 - v), (top + 1, v)):
        for column, horizontal in ((left, 1 - h), (left + 1, h)):
            r, c = min(max(int(row), 0), rows - 1), min(int(column), columns - 1)
            total += vertical * horizontal * float(plane[r, c])
    return total


def fp64_planes(
    rgb: NDArray[np.float64], shapes: Sequence[tuple[int, ...]], bits: int, matrix: int, full: bool
) -> list[NDArray[np.float64]]:
    """Back, before rounding: the samples of planes of these shapes."""
    red, blue = LUMA_WEIGHTS[matrix]
    step = 2 ** (bits - 8)
    luma = rgb @ [red, 1 - red - blue, blue]
    scale = (2**bits - 1) if full else 219 * step
    result = [luma * scale + (0 if full else 16 * step)]
    for channel, weight in ((2, blue), (0, red)):
        chroma = (rgb[..., channel] - luma) / (2 * (1 - weight))
        chroma = chroma * (2**bits - 1 if full else 224 * step) + 128 * step
        result.append(_averaged(chroma, shapes[1]))
    return result


def _averaged(chroma: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    height, width = chroma.shape
    result = np.zeros(shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            rows = [row] if shape[0] == height else [2 * row, 2 * row + 1]
            columns = [column] if shape[1] == width else [2 * column + k for k in (-1, 0, 0, 1)]
            values = [
                chroma[min(y, height - 1), min(max(x, 0), width - 1)] for y in rows for x in columns
            ]
            result[row, column] = np.mean(values)
    return result


def gif_of_tiny_frames(count: int) -> bytes:
    """2x2 pixels each, 24 bytes a frame (GIF89a)."""
    head = b"GIF89a" + b"\2\0\2\0\x80\0\0" + bytes(3) + b"\xff\xff\xff"
    control = b"!\xf9\4\4\1\0\0\0"
    parts = [b",\0\0\0\0\2\0\2\0\0\2\3%s\2\5\0" % first for first in (b"\4", b"D")]
    return head + b"".join(control + part for part in parts) * (count // 2) + b";"
