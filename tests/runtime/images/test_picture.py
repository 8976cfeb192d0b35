"""Animations, pages, and what becomes of them in other formats."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_model import random_pixels

from dvmsr.errors import DvmsrError
from dvmsr.runtime.images.picture import (
    Header,
    Picture,
    Timing,
    check_frames,
    decode_picture,
    encode_picture,
    read_picture,
)

DURATIONS = (100, 250, 40)
COLOURS = ("red", "lime", "blue")
LOSSLESS: dict[str, dict[str, Any]] = {".webp": {"lossless": True}, ".png": {}, ".gif": {}}


def moving(path: Path, loop: int | None = 0, **options: Any) -> Path:
    """Three frames of one colour with a black square that wanders."""
    frames = []
    for number, colour in enumerate(COLOURS):
        frame = Image.new("RGB", (12, 8), colour)
        frame.paste("black", (4 * number, 2, 4 * number + 3, 5))
        frames.append(frame)
    loops = {} if loop is None else {"loop": loop}
    more = {"save_all": True, "append_images": frames[1:], "duration": list(DURATIONS)}
    frames[0].save(path, **{**more, **loops, **LOSSLESS[path.suffix], **options})
    return path


def read(path: Path) -> Picture:
    return read_picture(path, lambda header: None)


def twice(frame: Image.Image) -> Image.Image:
    result = frame.resize((2 * frame.width, 2 * frame.height), Image.Resampling.NEAREST)
    result.info = dict(frame.info)
    return result


def rewritten(source: Path, target: Path) -> Picture:
    """The picture twice as large, written and read again."""
    target.write_bytes(encode_picture(read(source).mapped(twice), target, 2))
    return read(target)


@pytest.fixture(autouse=True)
def _no_warning_unless_expected() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.parametrize("target", LOSSLESS)
@pytest.mark.parametrize("source", LOSSLESS)
@pytest.mark.parametrize("plays", [0, 1, 3])
def test_frames_timing_and_repetition(tmp_path: Path, source: str, target: str, plays: int) -> None:
    """GIF tells how often it is repeated, and nothing if it is not; the others how often it plays.
    A WebP that comes from another format is compressed with loss."""
    loop = (plays - 1 or None) if source == ".gif" and plays else plays
    path = moving(tmp_path / f"p{source}", loop)
    result = rewritten(path, tmp_path / f"o{target}")
    assert result.timing == Timing(tuple(map(float, DURATIONS)), plays)
    tolerance = 8 if target == ".webp" and source != ".webp" else 0
    for before, after in zip(read(path).frames, result.frames, strict=True):
        difference = np.asarray(after.convert("RGB"), int) - np.asarray(twice(before), int)
        assert np.abs(difference).mean() <= tolerance


def test_an_avif_moves_too(tmp_path: Path) -> None:
    path = moving(tmp_path / "p.gif")
    result = rewritten(path, tmp_path / "o.avif")
    assert result.timing is not None and result.timing.durations == pytest.approx(DURATIONS)
    back = rewritten(tmp_path / "o.avif", tmp_path / "o.png")
    assert back.timing is not None and back.timing.durations == pytest.approx(DURATIONS)
    assert back.size == (48, 32)


def test_the_still_picture_of_an_animation(tmp_path: Path) -> None:
    path = moving(tmp_path / "p.png", default_image=True, duration=list(DURATIONS[1:]))
    assert len(read(path).frames) == 3
    result = rewritten(path, tmp_path / "o.png")
    assert result.timing is not None and result.timing.still
    assert result.timing.durations[1:] == DURATIONS[1:]
    assert result.frames[0].getpixel((23, 15)) == (255, 0, 0)
    with pytest.warns(UserWarning, match=r"o\.gif: the still picture that stands for the animat"):
        result = rewritten(path, tmp_path / "o.gif")
    assert len(result.frames) == 2


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_holes_move(tmp_path: Path, suffix: str) -> None:
    """Where a frame is transparent, the one before does not show."""
    frames = []
    for number in range(3):
        frame = Image.new("RGBA", (12, 8))
        frame.paste((200, 30, 60, 255), (4 * number, 2, 4 * number + 3, 5))
        frame.putpixel((4 * number, 2), (0, 0, 0, 0))  # or Pillow reads the WebP without alpha
        frames.append(frame)
    target = tmp_path / f"o{suffix}"
    timing = Timing((100.0,) * 3, 0)
    picture = Picture(tuple(frames), timing=timing)
    target.write_bytes(encode_picture(picture, target, 2))
    result = read(target)
    for before, after in zip(frames, result.frames, strict=True):
        alpha = np.asarray(after.convert("RGBA"))[..., 3]
        np.testing.assert_array_equal(alpha, np.asarray(before)[..., 3])


def test_half_transparency_of_a_gif(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((100, 140, 255)):
        image.putpixel((x, 0), (10, 20, 30, alpha))
    with pytest.warns(UserWarning, match="GIF holds no half transparency, which is cut at half"):
        data = encode_picture(Picture((image,), soft=True), Path("o.gif"), 1)
    with Image.open(io.BytesIO(data)) as written:
        assert list(written.convert("RGBA").getchannel("A").tobytes()) == [0, 255, 255]


def test_enlarged_edges_of_holes_are_no_half_transparency(tmp_path: Path) -> None:
    """A GIF has none, however its alpha is enlarged; a PNG that has some tells."""
    frame = Image.new("RGBA", (8, 8))
    frame.paste((255, 0, 0, 255), (2, 2, 6, 6))
    frame.save(tmp_path / "hard.gif")
    frame.putpixel((0, 0), (1, 2, 3, 90))
    frame.save(tmp_path / "soft.png")
    for name, soft in (("hard.gif", False), ("soft.png", True)):
        picture = read_picture(tmp_path / name, lambda header: None)
        assert picture.soft == soft
        larger = picture.mapped(lambda frame: frame.resize((32, 32), Image.Resampling.BICUBIC))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            encode_picture(larger, Path("o.gif"), 4)
        assert [str(warning.message)[:36] for warning in told] == (
            ["o.gif: GIF holds no half transparency"[:36]] if soft else []
        )


def test_pages_of_different_sizes(tmp_path: Path) -> None:
    pages = [Image.fromarray(random_pixels(5, 7)), Image.fromarray(random_pixels(9, 4, 1), "L")]
    pages[0].save(tmp_path / "p.tif", save_all=True, append_images=pages[1:])
    result = rewritten(tmp_path / "p.tif", tmp_path / "o.tif")
    assert result.timing is None
    for before, after in zip(pages, result.frames, strict=True):
        assert after.mode == before.mode
        np.testing.assert_array_equal(np.asarray(after), np.asarray(twice(before)))


def test_metadata_of_further_pages_is_told(tmp_path: Path) -> None:
    pages = [Image.new("L", (4, 4)), Image.new("L", (4, 4))]
    pages[1].encoderinfo = {"tiffinfo": {315: "Zoe"}}  # type: ignore[attr-defined]
    pages[0].save(tmp_path / "p.tif", save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match=r"p\.tif: EXIF data and the like are kept of the first"):
        read(tmp_path / "p.tif")


def test_the_main_picture_of_a_phone(tmp_path: Path) -> None:
    main = Image.new("RGB", (16, 16), "red")
    main.save(tmp_path / "p.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    with pytest.warns(UserWarning, match="its 1 further pictures, previews or depth maps"):
        assert len(read(tmp_path / "p.jpg").frames) == 1


@pytest.mark.parametrize(
    ("header", "target", "complaint"),
    [
        (Header(1, 1, 3, True), "o.jpg", r"p has 3 frames, which JPEG cannot hold; --format webp"),
        (Header(1, 1, 3, True), "o.tif", r"which TIFF cannot hold"),
        (Header(1, 1, 2, False), "o.png", r"p has 2 pages, which PNG cannot hold; --format tif"),
    ],
)
def test_frames_that_the_format_cannot_hold(header: Header, target: str, complaint: str) -> None:
    with pytest.raises(DvmsrError, match=complaint):
        check_frames(header, "p", Path(target))
    check_frames(Header(1, 1, 1, header.moving), "p", Path(target))


def test_every_page_is_asked_about_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(
        tmp_path / "p.tif", save_all=True, append_images=[Image.new("L", (9, 9))]
    )

    def refuse(header: Header) -> None:
        if header.width > 8:
            raise DvmsrError("large")

    with pytest.raises(DvmsrError, match=r"^large$"):
        read_picture(tmp_path / "p.tif", refuse)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".avif"])
def test_damaged_animations_end_in_one_sentence(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"p{suffix}"
    source = moving(tmp_path / "s.gif")
    target.write_bytes(encode_picture(read(source), target, 1))
    data = target.read_bytes()

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.tuples(st.integers(20, len(data) - 1), st.integers(0, 255)), min_size=1))
    def flip(changes: list[tuple[int, int]]) -> None:
        damaged = bytearray(data)
        for position, value in changes:
            damaged[position] = value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                decode_picture(io.BytesIO(damaged), "it", lambda header: None)
            except DvmsrError as error:
                assert str(error).startswith("it ")

    flip()


FRAMES = tuple(Image.fromarray(random_pixels(4, width)).resize((6, 4)) for width in (5, 6, 7))


@pytest.mark.parametrize(("end", "plays"), [(".gif", 65_537), (".webp", 65_536), (".avif", 3)])
def test_more_plays_than_a_format_holds_are_told(tmp_path: Path, end: str, plays: int) -> None:
    check = tmp_path / f"a{end}"
    picture = Picture(FRAMES, timing=Timing((40, 40, 40), plays))
    with pytest.warns(UserWarning, match=f"not {plays} times"):
        encoded = encode_picture(picture, check, 1)
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.n_frames == 3


def test_a_single_frame_beside_the_still_picture_is_a_gif(tmp_path: Path) -> None:
    picture = Picture(FRAMES[:2], timing=Timing((0, 40), 0, still=True))
    with pytest.warns(UserWarning, match="still picture"):
        encoded = encode_picture(picture, tmp_path / "a.gif", 1)
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.n_frames == 1


def test_what_an_encoder_cannot_hold_is_one_sentence(tmp_path: Path) -> None:
    picture = Picture(FRAMES, timing=Timing((900_000,) * 3, 0))
    with pytest.raises(DvmsrError, match="cannot be encoded as GIF"):
        encode_picture(picture, tmp_path / "a.gif", 1)
