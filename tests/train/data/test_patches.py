"""Training pairs: alignment, coverage, sources, and what is left out."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dvmsr.data.imresize import imresize
from dvmsr.data.pairs import Pair, read_rgb
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.train.data.patches import Patches
from dvmsr.train.data.photographs import load_pair, read_photographs
from dvmsr.train.data.sources import find_sources


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def ramp(side: int) -> np.ndarray:
    """Red grows to the right, green downwards: a pixel's colour is its position."""
    row, column = np.mgrid[:side, :side]
    return np.stack([column, row, np.full_like(row, 7)], -1).astype(np.uint8)


def noise(seed: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    for i in range(5):
        (path / f"{i}.png").write_bytes(png(noise(i)))
    return path


def patches_of(path: Path, scale: int = 4, patch: int = 8) -> Patches:
    photographs = read_photographs(find_sources([path]), scale, pytest.fail)
    return Patches(photographs, scale, patch, pytest.fail)


def pairs_of(path: Path) -> list[Pair]:
    return [each.pixels() for each in patches_of(path).photographs]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_and_hr_patches_show_the_same_place(tmp_path: Path, scale: int) -> None:
    (tmp_path / "ramp.png").write_bytes(png(ramp(240)))
    lrs, hrs = patches_of(tmp_path, scale).batch(seed=1, step=0, size=32)
    blocks = hrs.reshape(32, 8, scale, 8, scale, 3).mean((2, 4))
    # One LR pixel of displacement would be `scale` grey levels.
    assert np.abs(blocks - lrs).mean() < 0.6
    assert np.abs(blocks - lrs).max() < 0.75 * scale


def test_patches_may_stay_as_they_are(tmp_path: Path) -> None:
    """The same places of the photograph, each in its own orientation."""
    (tmp_path / "ramp.png").write_bytes(png(ramp(240)))
    patches = patches_of(tmp_path)
    upright = Patches(patches.photographs, 4, 8, pytest.fail, augment=False)
    for turned, plain in zip(patches.batch(1, 0, 32), upright.batch(1, 0, 32), strict=True):
        for one, other in zip(turned, plain, strict=True):
            ways = [np.rot90(other, turns) for turns in range(4)]
            assert any(np.array_equal(one, each) for each in (*ways, *(w[:, ::-1] for w in ways)))
    lrs = upright.batch(1, 0, 32)[0].astype(int)
    assert (lrs[:, 0, -1, 0] > lrs[:, 0, 0, 0]).all()  # red grows along a row of the ramp


def test_all_eight_orientations_occur(tmp_path: Path) -> None:
    (tmp_path / "ramp.png").write_bytes(png(ramp(240)))
    lrs, _ = patches_of(tmp_path).batch(seed=1, step=0, size=100)
    across = np.sign(lrs[:, 0, -1].astype(int) - lrs[:, 0, 0])[:, :2]  # red, green along a row
    down = np.sign(lrs[:, -1, 0].astype(int) - lrs[:, 0, 0])[:, :2]
    assert len({(*a, *d) for a, d in zip(across.tolist(), down.tolist(), strict=True)}) == 8


def test_each_pass_takes_every_photograph_once(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(png(np.full((32, 32, 3), i, np.uint8)))
    patches = patches_of(tmp_path)
    orders = []
    for epoch in range(3):  # batches of 4 do not divide 6: a batch may span two passes
        positions = range(6 * epoch, 6 * epoch + 6)
        orders.append([int(patches.batch(0, p // 4, 4)[0][p % 4, 0, 0, 0]) for p in positions])
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_batches_depend_on_seed_and_step_alone(folder: Path) -> None:
    first, second = patches_of(folder), patches_of(folder)
    second.batch(3, 99, 4)  # what was drawn before does not matter
    np.testing.assert_array_equal(first.batch(3, 7, 4)[1], second.batch(3, 7, 4)[1])
    assert (first.batch(3, 7, 4)[1] != first.batch(3, 8, 4)[1]).any()
    assert (first.batch(3, 7, 4)[1] != first.batch(4, 7, 4)[1]).any()


def test_a_part_of_a_batch_is_a_part_of_the_batch(folder: Path) -> None:
    patches = patches_of(folder)
    whole = patches.batch(3, 7, 6)
    for part in (slice(0, 2), slice(2, 4), slice(4, 6)):
        for some, all_ in zip(patches.batch(3, 7, 6, part), whole, strict=True):
            np.testing.assert_array_equal(some, all_[part])


def test_batches_made_in_several_threads_are_the_same(folder: Path) -> None:
    """Over many passes, whose orders the threads ask for all at once."""
    one, many = patches_of(folder), patches_of(folder)
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda step: many.batch(1, step, 7)[0], range(64)))
    for step, batch in enumerate(batches):
        np.testing.assert_array_equal(batch, one.batch(1, step, 7)[0])


def test_the_reduction_is_that_of_the_whole_image_cropped_to_a_multiple(tmp_path: Path) -> None:
    image = noise(0, 43)
    (tmp_path / "a.png").write_bytes(png(image))
    pair = load_pair((tmp_path / "a.png").read_bytes(), "a.png", 4)
    np.testing.assert_array_equal(pair.hr, image[:40, :40])
    np.testing.assert_array_equal(pair.lr, imresize(image[:40, :40], 0.25))


def test_a_tar_shard_equals_the_folder(folder: Path, tmp_path: Path) -> None:
    shard = tmp_path / "photos.tar"
    with tarfile.open(shard, "w") as archive:
        for file in sorted(folder.iterdir(), reverse=True):  # the order in the shard is no matter
            archive.add(file, file.name)
    a, b = patches_of(folder), patches_of(shard)
    assert a.fingerprint == b.fingerprint
    for x, y in zip(a.batch(0, 3, 4), b.batch(0, 3, 4), strict=True):
        np.testing.assert_array_equal(x, y)


def test_gray_and_palette_images_become_rgb(tmp_path: Path) -> None:
    gray = Image.fromarray(noise(0)[..., 0])
    gray.save(tmp_path / "gray.png")
    gray.convert("P").save(tmp_path / "palette.png")
    for pair in pairs_of(tmp_path):
        np.testing.assert_array_equal(pair.hr, noise(0)[..., :1].repeat(3, -1))


def test_photographs_are_read_as_everywhere_else(tmp_path: Path) -> None:
    """Upright, and with 16 bits reduced rather than cut off."""
    tags = Image.Exif()
    tags[0x0112] = 6  # turn right by 90 degrees
    Image.fromarray(noise(0)[:36]).save(tmp_path / "turned.png", exif=tags)
    Image.fromarray(noise(0)[..., 0].astype(np.uint16) * 257).save(tmp_path / "wide.png")
    with pytest.warns(UserWarning, match=r"wide\.png: 16 bits per channel are reduced"):
        turned, wide = pairs_of(tmp_path)
    np.testing.assert_array_equal(turned.hr, np.rot90(noise(0)[:36], -1))
    np.testing.assert_array_equal(turned.hr, read_rgb(tmp_path / "turned.png"))
    np.testing.assert_array_equal(wide.hr[..., 1], noise(0)[..., 0])


def test_the_fingerprint_is_that_of_the_contents_in_use(folder: Path) -> None:
    first = patches_of(folder)
    (folder / "4.png").rename(folder / "9.png")
    assert patches_of(folder).fingerprint == first.fingerprint
    (folder / "9.png").write_bytes(png(noise(99)))  # of the same name and size
    assert patches_of(folder).fingerprint != first.fingerprint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["pipe.png", "pipe.tar"])
def test_a_pipe_is_named_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    lines: list[str] = []
    with pytest.raises(DvmsrError):
        Patches(read_photographs(find_sources([tmp_path / name]), 4, lines.append), 4, 8, print)
    if name == "pipe.png":
        assert "pipe.png is no regular file" in lines[0]


def test_images_beyond_the_memory_are_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> Pair:
        raise MemoryError

    monkeypatch.setattr("dvmsr.train.data.photographs.load_pair", load)
    with pytest.raises(DvmsrError, match=r"only 0 of 5 do; give fewer, or a folder .* --cache"):
        patches_of(folder)


def test_an_interrupted_reading_does_not_read_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    release = threading.Event()

    def load(data: bytes, name: str, scale: int) -> Pair:
        read.append(name)
        if len(read) > 1:
            release.wait(5)
        return load_pair(data, name, scale)

    def interrupt() -> None:
        threading.Timer(0.2, release.set).start()
        raise KeyboardInterrupt

    monkeypatch.setattr("dvmsr.train.data.photographs.load_pair", load)
    monkeypatch.setattr("dvmsr.train.data.photographs.cores", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        read_photographs(find_sources([folder]), 4, print, interrupt)
    assert len(read) <= 2 < len(list(folder.iterdir()))


def test_unusable_images_are_reported_once_and_left_out(folder: Path) -> None:
    whole = (folder / "0.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    Image.fromarray(noise(0)).convert("RGBA").resize((50, 40)).rotate(9).save(folder / "clear.png")
    (folder / "tiny.png").write_bytes(png(noise(0, 3)))
    (folder / "small.png").write_bytes(png(noise(0, 31)))
    lines: list[str] = []
    photographs = read_photographs(find_sources([folder]), 4, lines.append)
    assert len(Patches(photographs, 4, 8, lines.append).photographs) == 5
    text = "\n".join(lines)
    for name in ("truncated", "empty", "text", "clear", "tiny"):
        assert text.count(f"{name}.") == 1
    assert "1 for being smaller than a patch (32x32 pixels)" in text
    assert len(lines) == 6


def test_a_patch_larger_than_every_image_is_refused(folder: Path) -> None:
    photographs = read_photographs(find_sources([folder]), 4, pytest.fail)
    with pytest.raises(UsageError, match=r"at least 44x44 pixels; lower --patch"):
        Patches(photographs, 4, 11, lambda line: None)


def test_pair_is_what_the_docstring_says(folder: Path) -> None:
    pair = load_pair(find_sources([folder])[0].read(), "0.png", 2)
    assert isinstance(pair, Pair)
    assert (pair.hr.shape, pair.lr.shape) == ((40, 40, 3), (20, 20, 3))
    assert pair.hr.dtype == pair.lr.dtype == np.uint8
