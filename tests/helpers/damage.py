"""Files that are damaged in ways that a seed decides, and what commands must make of them."""

from __future__ import annotations

import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features
from tiffs import DOUBLE, SHORT, write_tiff

HEIGHT, WIDTH = 20, 24
PATIENCE = 300
"""Seconds for a command."""


def sources() -> dict[str, bytes]:
    """Whole pictures of all formats and many kinds, by the name of their file."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([9 * x, 11 * y, 255 - 5 * x, 200 - 4 * y + x], -1).astype(np.uint8)
    image = Image.fromarray(pixels[..., :3])
    exif = Image.Exif()
    exif[271], exif[274], exif[282] = "maker", 6, 72.0
    exif[0x8769] = {0x9003: "2026:01:01 00:00:00"}
    told: dict[str, Any] = {"exif": exif.tobytes(), "dpi": (72, 72)}
    moving = {
        "save_all": True,
        "append_images": [image.rotate(90 * k) for k in (1, 2)],
        "duration": 40,
    }
    found: dict[str, bytes] = {}

    def add(name: str, picture: Image.Image, format: str, **options: Any) -> None:
        file = io.BytesIO()
        picture.save(file, format, **options)
        found[name] = file.getvalue()

    add("rgb.png", image, "PNG", **told)
    add("rgba.png", Image.fromarray(pixels), "PNG")
    add("gray.png", image.convert("L"), "PNG", transparency=7)
    add("palette.png", image.quantize(17), "PNG", transparency=b"\0\x80")
    add("bits.png", image.convert("1"), "PNG")
    add("deep.png", Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG")
    add("moving.apng", image, "PNG", **moving)
    add("plain.jpg", image, "JPEG", comment=b"by hand", **told)
    add("progressive.jpg", image, "JPEG", progressive=True, quality=60)
    add("cmyk.jpg", image.convert("CMYK"), "JPEG")
    add("several.jpg", image, "MPO", save_all=True, append_images=[image])
    add("lossy.webp", image, "WEBP", exif=told["exif"])
    add("lossless.webp", Image.fromarray(pixels), "WEBP", lossless=True)
    add("moving.webp", image, "WEBP", **moving)
    add("still.gif", image, "GIF")
    add("moving.gif", image, "GIF", loop=0, **moving)
    add("plain.bmp", image, "BMP")
    add("palette.bmp", image.quantize(9), "BMP")
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        more = {"exif": told["exif"]} if compression == "raw" else {}
        add(f"{compression}.tif", image, "TIFF", compression=compression, **more)
    add("fax.tif", image.convert("1"), "TIFF", compression="group4")
    add("lab.tif", image.convert("LAB"), "TIFF")
    add("pages.tif", image, "TIFF", save_all=True, append_images=[image.convert("L")])
    if features.check("avif"):
        add("plain.avif", image, "AVIF", exif=told["exif"])
    return found


def tiffs(folder: Path) -> dict[str, bytes]:
    """TIFFs that Pillow does not write."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([9 * x, 11 * y, 255 - 5 * x], -1)
    place = {33550: (DOUBLE, [1.0, 1.0, 0.0]), 34735: (SHORT, [1, 1, 0, 1, 1025, 0, 1, 2])}
    made: dict[str, dict[str, Any]] = {
        "geo.tif": {"more": place},
        "deep.tif": {"bits": 16, "order": ">"},
        "planar.tif": {"planar": True},
    }
    found = {}
    for name, options in made.items():
        options = {"bits": 8, **options}
        path = write_tiff(folder / name, pixels, options.pop("bits"), 2, **options)
        found[name] = path.read_bytes()
    return found


def damaged(data: bytes, seed: int) -> bytes:
    """Cut off, changed, moved or put together with itself, as the seed decides; of a PNG, checksums
    may be made to fit again."""
    rng = random.Random(seed)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, length = rng.randrange(len(changed)), rng.randint(1, 40)
        kind = rng.choice(
            ("cut", "flip", "byte", "number", "zeros", "noise", "drop", "twice", "more")
        )
        if kind == "cut" and at > 12:
            del changed[at:]
        elif kind == "flip":
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            changed[at] = rng.randrange(256)
        elif kind == "number":
            number = rng.choice((0, 1, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, len(data), 1 << 24))
            changed[at : at + 4] = struct.pack(rng.choice("<>") + "I", number)
        elif kind == "zeros":
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        elif kind == "noise":
            changed[at : at + length] = rng.randbytes(len(changed[at : at + length]))
        elif kind == "drop":
            del changed[at : at + length]
        elif kind == "twice":
            changed[at:at] = changed[at : at + length]
        elif kind == "more":
            changed += rng.randbytes(length)
        if len(changed) < 2:
            break
    whole = bytes(changed)
    return _with_checksums(whole) if rng.random() < 0.5 else whole


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks, as far as they can be followed, have the right ones."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    changed, place = bytearray(data), 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        changed[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(changed)


@dataclass
class Findings:
    """What commands made of damaged files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """How many, by format and outcome."""
    faults: list[str] = field(default_factory=list)
    """What must not be."""

    def __iadd__(self, other: Findings) -> Findings:
        self.outcomes += other.outcomes
        self.faults += other.faults
        return self


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str] | None:
    """A command in a folder; None if it has no end."""
    try:
        return subprocess.run(
            [*command],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=PATIENCE,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )
    except subprocess.TimeoutExpired:
        return None


_SAID = re.compile(r"(error|warning): (in|out)/|out/|.*\d+ of \d+ |\d+ images in |.*: \d+x\d+ -> ")
"""Lines on stderr that are ours."""


def enlarged(
    files: dict[str, bytes], folder: Path, scale: int, options: Iterable[str] = ()
) -> Findings:
    """What `dvmsr-infer` makes of pictures or videos, all in one run."""
    source, target = folder / "in", folder / "out"
    source.mkdir()
    for name, data in files.items():
        (source / name).write_bytes(data)
    code = "from dvmsr.runtime.cli import main; main()"
    command = [sys.executable, "-c", code, *(f"in/{name}" for name in files)]
    ended = run([*command, "-o", "out", "--json", "--memory", "1G", *options], folder)
    findings = Findings()
    if ended is None:
        findings.faults.append(f"it took more than {PATIENCE} s")
        return findings
    for line in ended.stderr.splitlines():
        if not _SAID.match(line):
            findings.faults.append(f"on standard error: {line[:200]!r}")
    try:
        rows = {row["input"]: row for row in json.loads(ended.stdout)}
    except ValueError:
        findings.faults.append(f"exit code {ended.returncode}, no JSON: {ended.stdout[:200]!r}")
        return findings
    failed = any(row["status"] == "failed" for row in rows.values())
    if ended.returncode != int(failed):
        findings.faults.append(f"exit code {ended.returncode}")
    expected = set()
    for name in files:
        row = rows.get(f"in/{name}")
        kind = Path(name).suffix[1:]
        if row is None:
            findings.faults.append(f"nothing is told of {name}")
        elif row["status"] == "failed":
            findings.outcomes[f"{kind} failed"] += 1
            if (
                Path(name).stem not in row["error"]
                or ";" not in row["error"]
                or "\n" in row["error"]
            ):
                findings.faults.append(f"{name}: {row['error']}")
        else:
            findings.outcomes[f"{kind} done"] += 1
            expected.add(Path(row["output"]).name)
            findings.faults += _result_faults(folder / row["output"], row, scale)
    there = {path.name for path in target.rglob("*")} if target.exists() else set()
    if there != expected:
        findings.faults.append(f"in the folder of results: {sorted(there ^ expected)[:5]}")
    return findings


def _result_faults(path: Path, row: dict[str, Any], scale: int) -> list[str]:
    size = [scale * side for side in row["input_size"]]
    if row["output_size"] != size:
        return [f"{path.name}: {row['input_size']} became {row['output_size']}"]
    if path.suffix in (".mp4", ".mov", ".mkv", ".webm"):
        return _video_faults(path, size)
    try:
        with Image.open(path) as image:
            image.load()
            if list(image.size) != size:
                return [f"{path.name} has {image.size} pixels, not {size}"]
    except Exception as error:
        return [f"{path.name} cannot be read: {error}"]
    return []


def _video_faults(path: Path, size: list[int]) -> list[str]:
    import av

    try:
        with av.open(str(path)) as file:
            frame = next(file.decode(video=0))
            return [] if [frame.width, frame.height] == size else [f"{path.name} is {frame}"]
    except (av.FFmpegError, StopIteration) as error:
        return [f"{path.name} cannot be read: {error}"]


LOAD = """
import sys
import numpy as np
from dvmsr.errors import DvmsrError
from dvmsr.runtime import Upscaler
for name in sys.argv[2:]:
    print("begin", name, flush=True)
    try:
        upscaler = Upscaler.from_file(name, sys.argv[1], threads=1)
        upscaler(np.zeros((6, 5, 3), np.uint8))
    except DvmsrError as error:
        print("failed", name, "\\n" not in str(error) and name in str(error), error, flush=True)
    else:
        print("done", name, flush=True)
"""


def loaded(files: dict[str, bytes], folder: Path, backend: str) -> Findings:
    """What `Upscaler.from_file`, and one image, make of models, all in one process."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    ended = run([sys.executable, "-W", "ignore", "-c", LOAD, backend, *files], folder)
    findings = Findings()
    if ended is None:
        findings.faults.append(f"it took more than {PATIENCE} s")
        return findings
    lines = [line.split(" ", 3) for line in ended.stdout.splitlines()]
    if ended.returncode or ended.stderr:
        said = ended.stderr.splitlines()[-1:]
        findings.faults.append(f"exit code {ended.returncode}, after {lines[-1]}: {said}")
    for word, name, *more in lines:
        if word != "begin":
            findings.outcomes[f"{Path(name).suffix[1:]} {word}"] += 1
        if word == "failed" and more[0] != "True":
            findings.faults.append(f"{name}: {more[1]}")
    return findings


def cases(
    whole: dict[str, bytes], first: int, count: int, of: Callable[[str], bool] = lambda name: True
) -> dict[str, bytes]:
    """So many damaged files, each by its own seed, from the first one on."""
    names = sorted(name for name in whole if of(name))
    found = {}
    for seed in range(first, first + count):
        name = names[seed % len(names)]
        found[f"{seed}-{name}"] = damaged(whole[name], seed)
    return found
