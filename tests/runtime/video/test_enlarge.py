"""`dvmsr-infer` on videos: what is kept, what is told, what is refused."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from clips import (
    HEIGHT,
    REGULAR,
    VARIABLE,
    WIDTH,
    Tags,
    all_planes,
    av,
    clip,
    fp64_planes,
    fp64_rgb,
    packets,
    planes,
    times,
    video_frames,
)
from foreign_model import save_foreign
from PIL import Image
from small_model import Models

from dvmsr.errors import UsageError
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.infer.options import Options
from dvmsr.runtime.storage.remote import Remote
from dvmsr.runtime.video import enlarge, library

Infer = Callable[..., int]
MODEL = ("--model", "m.onnx", "--backend", "portable", "--threads", "1")
MILLI = Fraction(1, 1000)


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five frames each."""
    monkeypatch.setattr(enlarge, "segment_length", lambda video: 5)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"m.onnx"}


@pytest.mark.parametrize(
    ("pixels", "tags", "options"),
    [
        ("yuv420p", Tags(), {}),
        ("yuv444p", Tags(1, 1, 1, 1), {}),
        ("yuv420p10le", Tags(2, 9, 9, 16), {}),
        ("yuv422p10le", Tags(1, 9, 9, 14), {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pictures_equal_the_network_in_fp64(
    folder: Path, infer: Infer, models: Models, pixels: str, tags: Tags, options: dict[str, str]
) -> None:
    """Lossless in and out: within one step of 8 bits, two of 10 (networks compute in FP32)."""
    clip("in.mkv", "ffv1", pixels, REGULAR[:3], tags=tags)
    assert infer("in.mkv", *MODEL) == 0
    network = copy.deepcopy(models.network).double()
    bits = 10 if "10" in pixels else 8
    matrix, full = (6 if tags.matrix == 2 else tags.matrix), tags.range == 2
    results = video_frames("in_x2.mkv")
    for source, result in zip(video_frames("in.mkv"), results, strict=True):
        rgb = fp64_rgb(planes(source), bits, matrix, full)
        with torch.inference_mode():
            enlarged = network(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0]
        pixels_out = enlarged.permute(1, 2, 0).clamp(0, 1).numpy()
        got = planes(result)
        shapes = [plane.shape for plane in got]
        assert shapes[0] == (2 * HEIGHT, 2 * WIDTH)
        for plane, expected in zip(
            got, fp64_planes(pixels_out, shapes, bits, matrix, full), strict=True
        ):
            assert np.abs(plane - expected).max() <= (1 if bits == 8 else 2)
    assert results[0].format.name == pixels


def test_everything_else_is_kept(
    folder: Path, infer: Infer, short_segments: None, capsys: pytest.CaptureFixture[str]
) -> None:
    tags, aspect = Tags(2, 1, 9, 16), Fraction(4, 3)
    kept = {"sound": "aac", "subtitles": True, "extras": True}
    clip("in.mkv", times=VARIABLE, tags=tags, aspect=aspect, **kept)
    assert infer("in.mkv", *MODEL) == 0
    assert "warning" not in capsys.readouterr().err
    assert names(folder) == {"in.mkv", "in_x2.mkv"}
    assert times("in_x2.mkv") == times("in.mkv") == [MILLI * time for time in VARIABLE]
    for kind in ("audio", "subtitle"):
        assert packets("in_x2.mkv", kind) == packets("in.mkv", kind)
    with av.open("in.mkv") as source, av.open("in_x2.mkv") as result:
        assert [stream.type for stream in result.streams] == [s.type for s in source.streams]
        video = result.streams.video[0]
        context = video.codec_context
        assert (context.name, context.width, context.height) == ("h264", 2 * WIDTH, 2 * HEIGHT)
        assert video.sample_aspect_ratio == aspect
        assert video.metadata["language"] == "deu"
        assert result.metadata["title"] == "A clip"
        assert result.chapters() == source.chapters()
        assert result.chapters()[0]["metadata"]["title"] == "One"
        assert result.streams.attachments[0].data == b"attached"
    for frame in video_frames("in_x2.mkv"):
        assert (frame.color_range, frame.colorspace) == (tags.range, tags.matrix)
        assert (frame.color_primaries, frame.color_trc) == (tags.primaries, tags.transfer)


@pytest.mark.parametrize(
    ("name", "codec", "sound", "options"),
    [
        ("in.mp4", "libx264", "aac", {"bf": "3"}),
        ("in.mov", "libx264", "aac", {}),
        ("in.mp4", "libx265", "aac", {"x265-params": "log-level=none"}),
        ("in.webm", "libvpx-vp9", "libopus", {}),
        ("in.mp4", "libsvtav1", None, {}),
        ("in.mov", "prores_ks", None, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_codecs_and_containers(
    folder: Path,
    infer: Infer,
    short_segments: None,
    name: str,
    codec: str,
    sound: str | None,
    options: dict[str, str],
) -> None:
    """Times that vary, over segments with frames out of order.

    WebM may leave out a duration that the rate implies.
    """
    size = (64, 64) if codec == "libsvtav1" else (16, 16)
    pixels = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    clip(name, codec, pixels, VARIABLE, size, sound=sound, options=options)
    assert infer(name, *MODEL) == 0
    result = f"in_x2{Path(name).suffix}"
    assert times(result) == times(name)
    last = packets(result, "video")[-1]
    assert last[1:] == (MILLI * 1640, last[2] if name == "in.webm" else MILLI * 40)
    if sound:
        assert packets(result, "audio") == packets(name, "audio")
    with av.open(name) as source, av.open(result) as file:
        assert file.streams.video[0].codec.name == source.streams.video[0].codec.name
        decoding = [p.dts for p in file.demux(video=0) if p.size]
        assert decoding == sorted(set(decoding))


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("byte", [1, 85, 165])
def test_few_frames_whatever_memory_holds(folder: Path, byte: int, frames: int) -> None:
    """x265 takes decoding times of the first two frames from memory that it never set."""
    clip("in.mkv", "ffv1", times=REGULAR[:frames])
    command = [sys.executable, "-c", "from dvmsr.runtime.cli import main; main()", "in.mkv"]
    command += ["-o", "out.mp4", "--codec", "hevc", *MODEL]
    environment = {**os.environ, "MALLOC_PERTURB_": str(byte)}
    ran = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=processes.LIMIT
    )
    assert ran.returncode == 0, ran.stderr
    assert times("out.mp4") == [MILLI * time for time in REGULAR[:frames]]


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv"])
def test_rotation(folder: Path, infer: Infer, name: str) -> None:
    clip(name, rotation=90)
    assert infer(name, *MODEL) == 0
    before, after = video_frames(name)[0], video_frames(f"in_x2{Path(name).suffix}")[0]
    assert before.rotation == after.rotation == 90
    with av.open(f"in_x2{Path(name).suffix}") as file:
        assert file.streams.video[0].average_rate == 25
    assert (after.width, after.height) == (2 * WIDTH, 2 * HEIGHT)


def test_ten_bits_stay(folder: Path, infer: Infer) -> None:
    clip("in.mp4", "libx264", "yuv420p10le", tags=Tags(1, 9, 9, 16))
    assert infer("in.mp4", "-o", "out.mkv", "--codec", "hevc", *MODEL) == 0
    frame = video_frames("out.mkv")[0]
    assert frame.format.name == "yuv420p10le"
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (9, 9, 16)


def test_gray_stays_gray(folder: Path, infer: Infer) -> None:
    clip("in.mkv", "ffv1", "gray", REGULAR[:2])
    assert infer("in.mkv", "-o", "out.mp4", *MODEL) == 0
    assert all((plane == 128).all() for each in all_planes("out.mp4") for plane in each[1:])


def test_another_network(folder: Path, infer: Infer) -> None:
    """Pixels repeated by a file of another program."""
    save_foreign(folder / "other.onnx", "Identity")
    clip("in.mkv", "ffv1", "gbrp10le", REGULAR[:2])
    assert infer("in.mkv", "--model", "other.onnx@1") == 0
    small, large = (planes(video_frames(name)[1]) for name in ("in.mkv", "in_x2.mkv"))
    for one, other in zip(small, large, strict=True):
        np.testing.assert_array_equal(one.repeat(2, 0).repeat(2, 1), other)


def test_rgb(folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]) -> None:
    """FFV1 and HEVC hold it, H.264 gets YUV without subsampling; red stays red."""
    clip("in.mkv", "ffv1", "gbrp10le", REGULAR[:2])
    assert infer("in.mkv", *MODEL) == 0
    assert video_frames("in_x2.mkv")[0].format.name == "gbrp10le"
    capsys.readouterr()
    assert infer("in.mkv", "-o", "out.mp4", "--crf", "1", *MODEL) == 0
    message = "h264 holds no gbrp10le here; the result is yuv444p10le"
    assert message in capsys.readouterr().err
    green, blue, red = planes(video_frames("in_x2.mkv")[1])
    frame = video_frames("out.mp4")[1]
    assert frame.colorspace == 1
    rgb = fp64_rgb(planes(frame), 10, 1, False) * 1023
    assert np.abs(rgb - np.stack([red, green, blue], -1)).mean() < 12


def test_an_untagged_matrix_is_told(folder: Path, infer: Infer) -> None:
    """Players infer it from the size, which changes."""
    clip("in.mp4")
    assert video_frames("in.mp4")[0].colorspace == 2
    assert infer("in.mp4", *MODEL) == 0
    assert {frame.colorspace for frame in video_frames("in_x2.mp4")} == {6}


def test_streams_that_do_not_fit_are_named(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    clip("in.mkv", sound="aac", subtitles=True)
    assert infer("in.mkv", "-o", "out.mp4", *MODEL) == 0
    message = "out.mp4 cannot hold stream 2 of in.mkv (subtitle, subrip), which is left out"
    assert message in capsys.readouterr().err
    with av.open("out.mp4") as file:
        assert [stream.type for stream in file.streams] == ["video", "audio"]


def test_other_containers_become_matroska(folder: Path, infer: Infer) -> None:
    """Times start anywhere in a transport stream, and at zero in the result."""
    clip("in.ts", times=[5000 + time for time in REGULAR])
    assert infer("in.ts", *MODEL) == 0
    assert times("in.ts")[0] == 5
    assert times("in_x2.mkv") == [MILLI * time for time in REGULAR]
    clip("b.ts", sound="aac")
    assert infer("b.ts", *MODEL) == 0
    with_heads, without = packets("b.ts", "audio"), packets("b_x2.mkv", "audio")
    assert len(with_heads) == len(without) > 20
    assert all(a[0].endswith(b[0]) for a, b in zip(with_heads, without, strict=True))


def test_interlaced_is_told(folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]) -> None:
    clip("in.mp4", size=(32, 32), options={"x264-params": "tff=1"})
    assert infer("in.mp4", *MODEL) == 0
    assert "in.mp4 is interlaced" in capsys.readouterr().err


def test_reports(folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]) -> None:
    clip("in.mp4")
    Image.new("RGB", (5, 4)).save("p.png")
    assert infer("in.mp4", "p.png", "--json", "--manifest", "m.jsonl", *MODEL) == 0
    captured = capsys.readouterr()
    entry, image = json.loads(captured.out)
    assert entry.pop("seconds") > 0
    assert entry == {
        "input": "in.mp4",
        "status": "done",
        "output": "in_x2.mp4",
        "input_size": [WIDTH, HEIGHT],
        "output_size": [2 * WIDTH, 2 * HEIGHT],
        "model": "m.onnx",
        "backend": "portable",
        "precision": "fp32",
        "strip": None,
        "frames": 12,
        "resumed_frames": 0,
    }
    assert image["frames"] == 1
    assert "in_x2.mp4: 16x12 -> 32x24, 12 frames in " in captured.err
    rows = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    done = [row for row in rows if (row["input"], row["status"]) == ("in.mp4", "done")]
    assert done[0]["frames"] == 12
    assert infer("in.mp4", "p.png", "--manifest", "m.jsonl", "--resume", *MODEL) == 0
    assert "2 of 2 images skipped" in capsys.readouterr().err


def test_folders_give_their_pictures_alone(folder: Path, infer: Infer) -> None:
    (folder / "both").mkdir()
    clip("both/in.mp4")
    Image.new("RGB", (5, 4)).save("both/p.png")
    assert infer("both", "-o", "out", *MODEL) == 0
    assert names(folder / "out") == {"p_x2.png"}
    assert infer("both/*", "-o", "out2", "--format", "mkv", *MODEL) == 0
    assert names(folder / "out2") == {"p_x2.png", "in_x2.mkv"}


def broken(folder: Path) -> None:
    whole = Path(clip("whole.mp4", sound="aac")).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mkv").write_text("a text\n" * 100)
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nwhole.mp4\n")
    Image.new("RGB", (16, 12)).save(folder / "p.png")
    shutil.copy("p.png", "picture.mp4")
    with av.open("sound.mp4", "w") as file:
        stream = file.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["cut.mp4"], 1, "cut.mp4 is no video that can be read, or damaged"),
        (["empty.mp4"], 1, "empty.mp4 is no video"),
        (["text.mkv"], 1, "text.mkv is no video"),
        (["list.mp4"], 1, "list.mp4 is no video"),
        (["picture.mp4"], 1, "picture.mp4 is no video"),
        (["sound.mp4"], 1, "sound.mp4 has no video stream"),
        (["no.mp4"], 2, "no.mp4 does not exist"),
        (["whole.mp4", "-o", "o.gif"], 2, "o.gif must end in one of .mp4"),
        (["whole.mp4", "-o", "o.png"], 2, "o.png must end in one of .mp4"),
        (["p.png", "-o", "o.mp4"], 2, "o.mp4 must end in one of .png"),
        (["whole.mp4", "-o", "o.webm", "--codec", "h264"], 2, "o.webm cannot hold h264"),
        (["whole.mp4", "--codec", "mpeg1"], 2, "--codec must be one of h264,"),
        (["whole.mp4", "--crf", "52"], 2, "--crf of h264 must be from 0 to 51"),
        (["whole.mp4", "-o", "o.mkv", "--codec", "ffv1", "--crf", "1"], 2, "ffv1 has no --crf"),
        (["p.png", "--crf", "3"], 2, "--codec and --crf are for videos"),
        (["whole.mp4", "--quality", "5"], 2, "--quality and --to-srgb are for images"),
        (["whole.mp4", "--to-srgb"], 2, "--quality and --to-srgb are for images"),
        (["whole.mp4", "--format", "png"], 2, "--format of a video must be one of mp4,"),
        (["whole.mp4", "-o", "-"], 2, "whole.mp4 is a video, which - cannot take"),
        (["p.png", "--format", "mp4"], 2, "--format mp4 is for videos"),
        (["p.png", "--resume"], 2, "--resume goes on with a manifest"),
        (["whole.mp4", "-o", "p.png/o.mp4"], 2, "p.png is not a folder"),
        (["whole.mp4", "-o", "there.mp4"], 2, "there.mp4 exists"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_refuses_with_one_sentence(
    folder: Path,
    infer: Infer,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    complaint: str,
) -> None:
    broken(folder)
    Path("there.mp4").touch()
    before = names(folder)
    assert infer(*arguments, *MODEL) == code
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1 and complaint in lines[0]
    assert names(folder) == before


def test_damage_inside_is_told(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of twelve frames one cannot be decoded; the others keep their times."""
    clip("in.mkv", options={"g": "1"})
    data, packet = bytearray(Path("in.mkv").read_bytes()), packets("in.mkv", "video")[5][0]
    place = data.index(packet)
    data[place : place + 12] = b"\xff" * 12
    Path("in.mkv").write_bytes(data)
    assert infer("in.mkv", *MODEL) == 0
    assert "in.mkv is damaged at 1 place, the first after 0.2 s" in capsys.readouterr().err
    assert times("in_x2.mkv") == [MILLI * time for time in REGULAR if time != REGULAR[5]]


def test_a_missing_end_is_told(
    folder: Path, infer: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    clip("in.mkv", times=range(0, 6000, 500), options={"g": "1"})
    data = Path("in.mkv").read_bytes()
    Path("in.mkv").write_bytes(data[: data.index(packets("in.mkv", "video")[6][0])])
    assert infer("in.mkv", *MODEL) == 0
    assert re.search(
        r"in\.mkv ends after (2\.5|3\.0) s, not 5\.\d s as it", capsys.readouterr().err
    )
    assert len(times("in_x2.mkv")) == 6


@pytest.mark.parametrize("name", ["a:b.mp4", "pipe:0.mkv", "%03d [1].mov", "ü.mp4"])
def test_unusual_names(folder: Path, infer: Infer, name: str) -> None:
    shutil.move(clip(f"in{Path(name).suffix}", times=REGULAR[:2]), name)
    assert infer(name, "--format", "mkv", *MODEL) == 0
    assert names(folder) == {name, f"{Path(name).stem}_x2.mkv"}


def test_stores_are_refused() -> None:
    """What is done could not be gone on with."""
    job = Job(Remote("memory://in.mp4"), Path("out.mp4"))
    with pytest.raises(
        UsageError, match=r"memory://in\.mp4 is a video; videos and results must be"
    ):
        Options().check([job])


def test_without_pyav(
    folder: Path,
    infer: Infer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip("in.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    library.import_av.cache_clear()
    try:
        assert infer("in.mp4", *MODEL) == 4
    finally:
        library.import_av.cache_clear()
    assert "pip install 'dvmsr[video]'" in capsys.readouterr().err
    assert names(folder) == {"in.mp4"}


def test_all_planes_of_identical_runs_agree(folder: Path, infer: Infer) -> None:
    """Without loss: x264 itself does not always make the same of equal pictures."""
    clip("in.mp4")
    for result in ("a.mkv", "b.mkv"):
        assert infer("in.mp4", "-o", result, "--codec", "ffv1", *MODEL) == 0
    for first, second in zip(all_planes("a.mkv"), all_planes("b.mkv"), strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
