"""Which codec, pixel format, size and quality a result gets."""

from __future__ import annotations

import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import av, video_frames

from dvmsr.errors import UsageError
from dvmsr.runtime.infer.display import ProgressDisplay
from dvmsr.runtime.video.codecs import CODECS, choose
from dvmsr.runtime.video.containers import WRITTEN
from dvmsr.runtime.video.encoding import encoding_to
from dvmsr.runtime.video.enlarge import segment_length
from dvmsr.runtime.video.source import Video
from dvmsr.runtime.video.yuv import Coding, Layout

I420, I420_10 = Layout("yuv", 8, (True, True)), Layout("yuv", 10, (True, True))
VIDEO = Video(
    path=Path("in.mp4"),
    stream=0,
    width=16,
    height=12,
    codec="h264",
    coding=Coding(I420),
    matrix=1,
    primaries=1,
    transfer=1,
    aspect=None,
    display=None,
    time_base=Fraction(1, 25),
    rate=Fraction(25),
    count=None,
    start=Fraction(0),
    lasts=None,
)


@pytest.mark.parametrize(
    ("codec", "layout", "target", "chosen"),
    [
        ("h264", I420, "a.mp4", "h264"),
        ("hevc", I420_10, "a.mov", "hevc"),
        ("hevc", I420, "a.webm", "vp9"),
        ("vp9", I420, "a.mkv", "vp9"),
        ("vp9", I420, "a.mov", "h264"),
        ("vp9", I420_10, "a.webm", "av1"),
        ("av1", I420_10, "a.mp4", "av1"),
        ("mpeg2video", I420, "a.mkv", "h264"),
        ("ffv1", I420, "a.mp4", "h264"),
        ("prores", Layout("yuv", 10, (False, True)), "a.mov", "prores"),
    ],
)
def test_codecs_follow_the_source(codec: str, layout: Layout, target: str, chosen: str) -> None:
    video = replace(VIDEO, codec=codec, coding=Coding(layout))
    encoding = choose(video, 4, Path(target), None, None)
    assert encoding.codec == chosen
    assert encoding.coding.layout == layout
    assert (encoding.width, encoding.height) == (64, 48)
    default = CODECS[chosen].crf
    assert encoding.options.get("crf") == (None if default is None else str(default))


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_encodes_in_its_containers(codec: str, tmp_path: Path) -> None:
    """Whatever the pixels are."""
    assert set(CODECS[codec].containers) <= set(WRITTEN.values())
    suffix = next(end for end, name in WRITTEN.items() if name in CODECS[codec].containers)
    for layout in (I420, Layout("yuv", 12, (False, False)), Layout("rgb", 8), Layout("gray", 10)):
        video = replace(VIDEO, coding=Coding(layout), width=32, height=32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            encoding = choose(video, 2, tmp_path / f"a{suffix}", codec, None)
        path = tmp_path / "segment"
        pixels = np.full((encoding.height, encoding.width, 3), 30000, np.uint16)
        with encoding_to(str(path), video, encoding) as encoder:
            for pts in range(3):
                encoder.write(pixels, pts)
            encoder.finish()
        with av.open(str(path)) as file:
            assert len(list(file.decode(video=0))) == 3


def test_odd_sides_become_even(tmp_path: Path) -> None:
    """H.264 with chroma at every second row and column has even sides; VP9 need not."""
    video = replace(VIDEO, width=17, height=13)
    with pytest.warns(UserWarning, match="h264 wants even sides"):
        encoding = choose(video, 3, Path("a.mp4"), None, None)
    assert (encoding.width, encoding.height) == (52, 40)
    pixels = np.zeros((39, 51, 3), np.uint16)
    pixels[-1] = pixels[:, -1] = 65535
    path = tmp_path / "segment"
    with encoding_to(str(path), video, encoding) as encoder:
        encoder.write(pixels, 0)
        encoder.finish()
    luma = video_frames(path)[0].to_ndarray()[:40]
    assert luma.shape == (40, 52)
    assert luma[:, -2:].min() > 200 and luma[-2:].min() > 200
    assert luma[:36, :48].max() < 60
    assert choose(replace(video, codec="vp9"), 3, Path("a.webm"), None, None).width == 51


def test_encoders_hold_fewer_large_frames() -> None:
    small = choose(VIDEO, 4, Path("a.mp4"), None, None)
    large = choose(replace(VIDEO, width=1920, height=1080), 4, Path("a.mp4"), None, None)
    assert small.options["rc-lookahead"] == "40"
    assert large.options["rc-lookahead"] == "4"


@pytest.mark.parametrize(
    ("codec", "crf", "target", "complaint"),
    [
        ("h264", 52, "a.mp4", "--crf of h264 must be from 0 to 51, not 52"),
        ("prores", 1, "a.mov", "prores has no --crf"),
        ("hevc", None, "a.webm", "a.webm cannot hold hevc"),
        (None, None, "a.avi", "a.avi must end in one of .mp4"),
    ],
)
def test_what_does_not_fit(codec: str | None, crf: int | None, target: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        choose(VIDEO, 4, Path(target), codec, crf)


@pytest.mark.parametrize(
    ("width", "height", "frames"),
    [(16, 12, 240), (320, 240, 240), (640, 480, 65), (1920, 1080, 48)],
)
def test_length_of_segments(width: int, height: int, frames: int) -> None:
    assert segment_length(replace(VIDEO, width=width, height=height)) == frames


def test_progress_tells_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four frames in ten seconds that were made now; 20 more to go."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    display = ProgressDisplay(1)
    display.frames(6, 30, before=6)
    now[0] += 10
    display.frames(10, 30, before=6)
    (task,) = display._progress.tasks
    assert (task.completed, task.total) == (10, 30)
    assert task.fields["speed"] == "frame 10 of 30, 0:00:50 left"
    display.frames(31, 30, before=6)
    assert task.total == 31
