"""Sound of discs and camcorders: no sample of it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from clips import av, picture
from numpy.typing import NDArray

Infer = Callable[..., int]
MODEL = ("--model", "m.onnx", "--backend", "portable", "--threads", "1")
CONTAINERS = {"pcm_bluray": ("mpegts", "in.m2ts"), "pcm_dvd": ("vob", "in.vob")}
SAMPLES = 1920
"""Of a picture."""


def disc(codec: str, format: str, layout: str) -> str:
    """Writes a video with sound."""
    container, path = CONTAINERS[codec]
    options = {"mpegts_m2ts_mode": "1"} if codec == "pcm_bluray" else {}
    rng = np.random.default_rng(0)
    with av.open(path, "w", format=container, options=options) as file:
        video = file.add_stream("mpeg2video", rate=25, width=16, height=12, pix_fmt="yuv420p")
        sound = file.add_stream(codec, rate=48000, layout=layout)
        sound.codec_context.format = format
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts = number
            file.mux(video.encode(frame))
            channels = len(av.AudioLayout(layout).channels)
            values = rng.integers(-(1 << 23), 1 << 23, (1, SAMPLES * channels), np.int32)
            values = values << 8 if format == "s32" else (values >> 8).astype(np.int16)
            heard = av.AudioFrame.from_ndarray(values, format=format, layout=layout)
            heard.rate, heard.pts = 48000, number * SAMPLES
            file.mux(sound.encode(heard))
        file.mux(video.encode(None))
        file.mux(sound.encode(None))
    return path


def sound(path: str) -> tuple[str, NDArray[Any], float]:
    """Codec, samples by channel, and when they begin after the pictures, in seconds."""
    with av.open(path) as file:
        stream = file.streams.audio[0]
        frames = list(file.decode(stream))
        samples = [frame.to_ndarray().reshape(-1, len(frame.layout.channels)) for frame in frames]
        codec, begin = stream.codec_context.name, frames[0].time
    with av.open(path) as file:
        first = next(file.decode(video=0)).time
    return codec, np.concatenate(samples), begin - first


@pytest.mark.parametrize("target", ["o.mkv", "o.mov", "o.mp4"])
@pytest.mark.parametrize(
    ("codec", "format", "layout", "expected"),
    [
        ("pcm_bluray", "s16", "stereo", "pcm_s16le"),
        ("pcm_bluray", "s32", "stereo", "pcm_s24le"),
        ("pcm_bluray", "s32", "5.1(side)", "pcm_s24le"),
        ("pcm_bluray", "s16", "mono", "pcm_s16le"),
        ("pcm_dvd", "s16", "stereo", "pcm_s16le"),
        ("pcm_dvd", "s32", "stereo", "pcm_s24le"),
    ],
)
def test_the_samples_stay(
    folder: Any,
    infer: Infer,
    capsys: pytest.CaptureFixture[str],
    codec: str,
    format: str,
    layout: str,
    expected: str,
    target: str,
) -> None:
    source = disc(codec, format, layout)
    assert infer(source, "-o", target, *MODEL) == 0
    assert "left out" not in capsys.readouterr().err
    _, before, begin = sound(source)
    written, after, begun = sound(target)
    assert written == expected
    np.testing.assert_array_equal(after, before)
    assert begun == pytest.approx(begin, abs=0.002)


def test_where_it_is_not_held_it_is_left_out_with_a_warning(
    folder: Any, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    source = disc("pcm_dvd", "s16", "stereo")
    assert infer(source, "-o", "o.webm", *MODEL) == 0
    assert "o.webm cannot hold stream 1 of in.vob (audio, pcm_dvd)" in capsys.readouterr().err
