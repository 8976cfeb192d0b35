"""Odd streams: covers, attachments, transparency, joined recordings, long sound."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from clips import MILLISECONDS, REGULAR, av, clip, packets, picture, times
from PIL import Image

from dvmsr.runtime.video.timeline import Timeline

Infer = Callable[..., int]
MODEL = ("--model", "m.onnx", "--backend", "portable", "--threads", "1")
SHORT = REGULAR[:3]


def with_cover(path: str) -> bytes:
    """Writes a video with a picture of its cover, which is given back."""
    data = io.BytesIO()
    Image.fromarray(picture(3)).save(data, "JPEG")
    with av.open(path, "w") as file:
        cover = file.add_stream("mjpeg", width=16, height=12, rate=1)
        cover.codec_context.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = file.add_stream("libx264", rate=25, width=16, height=12)
        file.start_encoding()
        packet = av.Packet(data.getvalue())
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, 25)
        file.mux(packet)
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return data.getvalue()


def covers(path: str) -> list[bytes]:
    with av.open(path) as file:
        attached = av.stream.Disposition.attached_pic
        wanted = [stream for stream in file.streams.video if stream.disposition & attached]
        return [bytes(packet) for packet in file.demux(wanted) if packet.size] if wanted else []


def test_covers(folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]) -> None:
    cover = with_cover("in.mp4")
    for source, result in (("in.mp4", "a.mp4"), ("in.mp4", "a.mkv"), ("a.mkv", "b.mp4")):
        assert infer(source, "-o", result, *MODEL) == 0
        assert covers(result) == [cover]
        assert "warning" not in capsys.readouterr().err
    assert infer("in.mp4", "-o", "a.mov", *MODEL) == 0
    assert "a.mov cannot hold stream 1 of in.mp4 (video, mjpeg)" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["out.mp4", "out.webm"])
def test_attachments_are_for_matroska(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    clip("in.mkv", times=SHORT, extras=True)
    assert infer("in.mkv", "-o", target, *MODEL) == 0
    left_out = f"{target} cannot hold stream 1 of in.mkv (attachment, note.txt), which is left out"
    assert left_out in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("in.webm", "libvpx-vp9", "yuva420p"), ("in.mkv", "ffv1", "bgra")],
)
def test_transparency_is_told(
    folder: Path,
    infer: Infer,
    capsys: pytest.CaptureFixture[str],
    name: str,
    codec: str,
    pixels: str,
) -> None:
    """FFmpeg's decoder of VP9 does not show it; the container tells."""
    clip(name, codec, pixels, SHORT)
    assert infer(name, *MODEL) == 0
    assert capsys.readouterr().err.count(f"{name}: transparency is not kept") == 1


@pytest.mark.parametrize("target", ["out.mkv", "out.mp4"])
def test_joined_recordings_go_on(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    """Two transport streams in a row: no frame and no sound is lost or piled up."""
    one = Path(clip("one.ts", times=range(0, 1000, 40), sound="aac"))
    Path("in.ts").write_bytes(2 * one.read_bytes())
    assert infer("in.ts", "-o", target, *MODEL) == 0
    assert "in.ts holds several recordings; times start again after 1." in capsys.readouterr().err
    shown = times(target)
    steps = {after - before for before, after in pairwise(shown)}
    assert len(shown) == 50
    assert steps <= {Fraction(40, 1000), Fraction(39, 1000), Fraction(41, 1000)}
    assert len(packets(target, "audio")) == len(packets("in.ts", "audio"))
    assert packets(target, "audio")[-1][1] > Fraction(19, 10)


def test_sound_may_be_longer(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only pictures that end before they should are told."""
    with av.open("in.mp4", "w") as file:
        stream = file.add_stream("libx264", rate=25, width=16, height=12)
        tone = file.add_stream("aac", rate=48000)
        for number in range(150):
            silence = av.AudioFrame.from_ndarray(
                np.zeros((2, 1024), np.float32), format="fltp", layout="stereo"
            )
            silence.sample_rate, silence.pts = 48000, 1024 * number
            file.mux(tone.encode(silence))
        frame = av.VideoFrame.from_ndarray(picture(0), format="rgb24").reformat(format="yuv420p")
        frame.pts = 0
        file.mux([*stream.encode(frame), *stream.encode(None), *tone.encode(None)])
    assert infer("in.mp4", *MODEL) == 0
    assert "ends after" not in capsys.readouterr().err
    assert packets("in_x2.mp4", "audio") == packets("in.mp4", "audio")


@pytest.mark.parametrize(
    ("strict", "given", "expected", "jumped"),
    [
        (True, [0, 40, 40, 39, 80], [0, 40, 41, 42, 80], None),
        (False, [0, 40, 40, 39, 80], [0, 40, 40, 41, 80], None),
        (True, [5000, 5040, 0, 40, -500], [5000, 5040, 5080, 5120, 5160], 5080),
        (True, [-80, -40, 0], [-80, -40, 0], None),
    ],
)
def test_timeline(strict: bool, given: list[int], expected: list[int], jumped: int | None) -> None:
    timeline = Timeline(MILLISECONDS, strict)
    assert [time + timeline.shift(time, 40) for time in given] == expected
    assert timeline.jumped == jumped


def test_streams_of_no_known_codec_are_left_out_with_a_warning(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(clip("known.mkv", times=SHORT, sound="aac", subtitles=True)).read_bytes()
    for known, unknown in ((b"S_TEXT/UTF8", b"S_TEXT/UTFX"), (b"A_AAC", b"A_AXX")):
        assert known in data
        data = data.replace(known, unknown)
    Path("in.mkv").write_bytes(data)
    assert infer("in.mkv", "-o", "o.mkv", *MODEL) == 0
    told = capsys.readouterr().err
    for kind in ("audio", "subtitle"):
        assert f"of in.mkv ({kind}), which is left out" in told
