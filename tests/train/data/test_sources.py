"""Where photographs are found: folders, published data sets, tar shards."""

from __future__ import annotations

import io
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dvmsr.errors import UsageError
from dvmsr.train.data.sources import find_sources


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def noise(seed: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    for i in range(5):
        (path / f"{i}.png").write_bytes(png(noise(i)))
    return path


def test_a_folder_may_hold_shards_and_folders(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(folder / "0.png", "deep/0.png")
        archive.add(folder / "1.png", "notes.txt")
    assert [source.name for source in find_sources([tmp_path])] == [
        *(f"{i}.png" for i in range(5)),
        "deep/0.png",
    ]


def test_what_is_hidden_or_found_twice_is_not_taken(folder: Path) -> None:
    once = find_sources([folder])
    (folder / "._0.png").write_bytes(b"litter")
    (folder / ".trash").mkdir()
    (folder / ".trash" / "5.png").write_bytes(png(noise(5)))
    (folder / "link.png").symlink_to(folder / "0.png")
    assert find_sources([folder, folder / "3.png", folder / "." / "4.png"]) == once


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        (["DIV2K_train_HR/1.png"], ["DIV2K_train_LR_bicubic/X4/1x4.png", "DIV2K_valid_HR/2.png"]),
        (["Flickr2K_HR/1.png"], ["Flickr2K_LR_bicubic/X2/1x2.png", "Flickr2K_LR_unknown/1.png"]),
        (["HR/train/0001000/0000001.png"], ["X4/train/0001000/0000001x4.png", "val1/HR/val/1.png"]),
        (["HR/baby.png"], ["LRx4/baby.png"]),
        (["lrose/a.png", "valley/test/x9/b.png", "color/c.png"], []),
    ],
    ids=["DIV2K", "Flickr2K", "LSDIR", "Set5", "photographs"],
)  # fmt: skip
def test_published_layouts_are_recognised(
    tmp_path: Path, wanted: list[str], others: list[str]
) -> None:
    for i, name in enumerate((*wanted, *others)):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(png(noise(i)))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = find_sources([tmp_path])
    assert sorted(str(source.path.relative_to(tmp_path)) for source in found) == sorted(wanted)
    assert len(told) == len(others)
    for name in others:
        assert any(name.split("/")[0] in str(warning.message) for warning in told)
        assert len(find_sources([(tmp_path / name).parent])) == 1


def test_missing_empty_and_broken_sources_are_named(tmp_path: Path) -> None:
    (tmp_path / "shard.tar").write_text("no archive")
    (tmp_path / "empty").mkdir()
    for name, made in {"map.tar": "x,1,2", "holes.tar": "0,2,6,1"}.items():
        with tarfile.open(tmp_path / name, "w", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo("a.png")
            member.size, member.pax_headers = 3, {"GNU.sparse.map": made, "GNU.sparse.size": "7"}
            archive.addfile(member, io.BytesIO(b"abc"))
    with tarfile.open(tmp_path / "size.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.png")
        member.size, member.pax_headers = 3, {"size": "-5"}
        archive.addfile(member, io.BytesIO(b"abc"))
    for name, message in {
        "size.tar": r"size\.tar is damaged: a\.png has -5 bytes; get a complete copy",
        "map.tar": r"map\.tar is damaged or not an uncompressed tar archive; .*complete copy",
        "holes.tar": r"holes\.tar holds a\.png with holes; pack it again without --sparse",
        "nowhere": "nowhere does not exist",
        "empty": "no images in .*empty",
        "shard.tar": "get a complete copy",
    }.items():
        with pytest.raises(UsageError, match=message):
            find_sources([tmp_path / name])
