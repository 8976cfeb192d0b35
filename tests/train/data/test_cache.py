"""The cache of decoded pixels: equal to memory, made once, never half, damage noticed."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dvmsr.data.pairs import Pair
from dvmsr.errors import DvmsrError
from dvmsr.train.data import cache
from dvmsr.train.data.cache import INDEX, PIXELS, PixelCache
from dvmsr.train.data.patches import Patches
from dvmsr.train.data.photographs import load_pair, read_photographs
from dvmsr.train.data.sources import find_sources


def png(seed: int, height: int = 40, width: int = 50) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four that are sound, one of them small, and a broken one in between."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, size in enumerate([(40, 50), (43, 39), (31, 60), (48, 40)]):
        (folder / f"{i}.png").write_bytes(png(i, *size))
    (folder / "1-broken.png").write_bytes(png(9)[:99])
    return folder


def cached(folder: Path, photos: Path, lines: list[str] | None = None) -> PixelCache:
    report = [].append if lines is None else lines.append
    return PixelCache(folder, find_sources([photos]), 4, report)


def made(folder: Path, photos: Path) -> PixelCache:
    pixels = cached(folder, photos)
    pixels.make()
    return pixels


def left(folder: Path) -> list[str]:
    """The files below it, without the lock."""
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


def test_batches_are_those_of_memory(photos: Path, tmp_path: Path) -> None:
    in_memory = Patches(read_photographs(find_sources([photos]), 4, print), 4, 8, print)
    from_file = Patches(made(tmp_path / "c", photos).photographs(), 4, 8, print)
    assert len(from_file.photographs) == 3
    assert from_file.fingerprint == in_memory.fingerprint
    assert from_file.files(5, 0, 9) == in_memory.files(5, 0, 9)
    for step in range(20):
        for a, b in zip(from_file.batch(5, step, 3), in_memory.batch(5, step, 3), strict=True):
            np.testing.assert_array_equal(a, b)


def test_it_is_made_once_and_found_again_where_the_images_moved(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[str] = []
    pixels = cached(tmp_path / "c", photos, first)
    pixels.make()
    pixels.photographs()
    monkeypatch.setattr(cache, "load_pair", pytest.fail)
    photos = photos.rename(tmp_path / "moved")
    later: list[str] = []
    again = cached(tmp_path / "c", photos, later)
    again.make()
    assert [each.name for each in again.photographs()] == [
        str(photos / f"{i}.png") for i in range(4)
    ]
    assert first[0] == f"decoding 5 images into {pixels.place}" and len(first) == 2
    (told,) = later  # of the broken one, by its name of today
    assert told == first[1].replace(str(tmp_path / "photos"), str(photos))
    assert told.startswith(f"left out: {photos / '1-broken.png'} is damaged")


def test_the_pixels_cannot_be_written_to(photos: Path, tmp_path: Path) -> None:
    pair = made(tmp_path / "c", photos).photographs()[0].pixels()
    with pytest.raises(ValueError, match="read-only"):
        pair.hr[0, 0, 0] = 1


def test_other_images_have_a_place_of_their_own(photos: Path, tmp_path: Path) -> None:
    first = made(tmp_path / "c", photos)
    (photos / "0.png").write_bytes(png(77))
    second = made(tmp_path / "c", photos)
    assert second.place != first.place
    assert PixelCache(tmp_path / "c", find_sources([photos]), 2, print).place != second.place
    np.testing.assert_array_equal(second.photographs()[0].pixels().hr, load_pair(png(77), "", 4).hr)


def test_images_none_of_which_is_usable(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    assert made(tmp_path / "c", tmp_path / "a.png").photographs() == []


@pytest.mark.parametrize("what", ["cut", "longer", "no-json", "no-index", "fewer", "no-pixels"])
def test_damage_is_noticed_at_once(photos: Path, tmp_path: Path, what: str) -> None:
    pixels = made(tmp_path / "c", photos)
    index, data = pixels.place / INDEX, pixels.place / PIXELS
    if what in ("cut", "longer"):
        os.truncate(data, data.stat().st_size + (1 if what == "longer" else -1))
    elif what == "no-pixels":
        data.unlink()
    elif what == "fewer":
        content = json.loads(index.read_bytes())
        del content["images"][1]  # the broken one, which has no pixels
        index.write_text(json.dumps(content))
    else:
        index.write_text("{" if what == "no-json" else '{"format": 1, "images": [{"size": 3}]}')
    with pytest.raises(DvmsrError) as caught:
        pixels.photographs()
    assert str(caught.value) == f"{pixels.place} is damaged; remove it, and it is made again"
    shutil.rmtree(pixels.place)
    assert len(made(tmp_path / "c", photos).photographs()) == 4


def test_a_changed_byte_is_noticed_when_its_photograph_is_used(
    photos: Path, tmp_path: Path
) -> None:
    pixels = made(tmp_path / "c", photos)
    data = bytearray((pixels.place / PIXELS).read_bytes())
    data[-1] ^= 1
    (pixels.place / PIXELS).write_bytes(data)
    *sound, spoiled = pixels.photographs()
    for each in sound:
        each.pixels()
    with pytest.raises(DvmsrError, match=f"{pixels.place.name} is damaged; remove it"):
        spoiled.pixels()


def test_too_little_room_is_noticed_before_anything_is_decoded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = sum(3 * height * width * 17 for height, width in [(10, 12), (10, 9), (7, 15), (12, 10)])
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(need - 1))
    with monkeypatch.context() as patched, pytest.raises(DvmsrError) as caught:
        patched.setattr(cache, "load_pair", pytest.fail)
        made(tmp_path / "c", photos)
    assert f"{tmp_path / 'c'} has 0.00 GiB free, but" in str(caught.value)
    assert str(caught.value).endswith("; make room or choose another --cache")
    assert not left(tmp_path / "c")


def test_a_disk_that_is_full_all_the_same_leaves_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(DvmsrError) as caught:
        patched.setattr(os, "fsync", full)
        made(tmp_path / "c", photos)
    assert "cannot be written (No space left on device); make room" in str(caught.value)
    assert not left(tmp_path / "c")
    assert len(made(tmp_path / "c", photos).photographs()) == 4


def test_an_image_that_changes_meanwhile_is_named(photos: Path, tmp_path: Path) -> None:
    pixels = cached(tmp_path / "c", photos)
    (photos / "3.png").write_bytes(png(77))
    with pytest.raises(DvmsrError, match=r"3\.png changed while it was read; start again"):
        pixels.make()
    assert not left(tmp_path / "c")


def test_a_folder_in_the_way_of_which_is_a_file_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DvmsrError, match=r"file/x4-.* cannot be written to .*--cache"):
        made(tmp_path / "file", photos)


PROGRAM = """
import os, sys, time
from pathlib import Path
from dvmsr.train.data import cache
from dvmsr.train.data.sources import find_sources

def begin(*_):
    os.write(1, b"begun\\n")
    time.sleep(600)

cache.load_pair = begin
folder, photos = map(Path, sys.argv[1:])
cache.PixelCache(folder, find_sources([photos]), 4, lambda line: None).make()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks")
def test_a_process_waits_for_another_and_takes_over_where_it_is_killed(
    photos: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "c"), str(photos)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "begun\n"
        assert any(name.startswith(".dvmsr-") for name in left(tmp_path / "c"))
        lines: list[str] = []
        waits = threading.Event()

        def report(line: str) -> None:
            lines.append(line)
            waits.set()

        pixels = PixelCache(tmp_path / "c", find_sources([photos]), 4, report)
        waiting = threading.Thread(target=pixels.make)
        waiting.start()
        assert waits.wait(60)
        assert lines == [f"another process decodes into {pixels.place}; waiting for it"]
        assert waiting.is_alive() and not (pixels.place / INDEX).exists()
    finally:
        other.kill()
        other.wait()
    waiting.join(60)
    assert left(tmp_path / "c") == sorted([INDEX, PIXELS])
    want = load_pair((photos / "0.png").read_bytes(), "", 4)
    have = pixels.photographs()[0].pixels()
    assert isinstance(have, Pair)
    np.testing.assert_array_equal(have.hr, want.hr)
    np.testing.assert_array_equal(have.lr, want.lr)
