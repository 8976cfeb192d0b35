"""`dvmsr compare`: the pictures and figures in the page, and what is refused without a trace."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from foreign_model import SCALE, repeated, save_foreign
from numpy.typing import NDArray
from PIL import Image

from dvmsr.data.imresize import imresize
from dvmsr.data.pairs import read_rgb, reduce
from dvmsr.eval.metrics import psnr_y, ssim_y


class Page(HTMLParser):
    """The pictures by name, the figures, attributes that hold addresses, and the scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.pictures: dict[str, NDArray[np.uint8]] = {}
        self.profiles: set[bytes | None] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.policy = self.script = self.title = ""
        self._tag = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        values = {name: value or "" for name, value in attrs}
        self.handlers += [name for name in values if name.startswith("on")]
        self.addresses += [values[name] for name in ("src", "href", "srcset") if name in values]
        if tag == "meta" and "http-equiv" in values:
            self.policy = values["content"]
        if tag == "img":
            head, _, data = values["src"].partition(",")
            assert head == "data:image/webp;base64"
            picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
            self.pictures[values["alt"]] = np.asarray(picture.convert("RGB"))
            self.profiles.add(picture.info.get("icc_profile"))

    def handle_data(self, data: str) -> None:
        if self._tag == "script":
            self.script += data
        elif self._tag == "title":
            self.title += data
        elif self._tag in ("th", "td"):
            self.texts += [data.strip()] if data.strip() else []

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""


@pytest.fixture
def command(command: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """Runs `dvmsr compare` in this process: arguments -> exit code, stdout, stderr."""
    return partial(command, "compare")


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """45x38 pixels, in the current folder."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    Image.fromarray(imresize(noise, 4)[:45, :38]).save("photo.png")
    return Path("photo.png")


@pytest.fixture
def foreign(tmp_path: Path) -> str:
    pytest.importorskip("onnx")
    return f"{save_foreign(tmp_path / 'twice.onnx', 'Clip').name}@1"


def test_page_holds_what_was_computed(command, photo: Path, foreign: str) -> None:
    code, out, err = command(photo, "--model", foreign, "--html", "page.html", "--json")
    page = Page(Path("page.html"))
    pair = reduce(read_rgb(photo), SCALE, "photo")
    wanted = {
        "input": pair.lr,
        "bicubic": imresize(pair.lr, SCALE),
        "twice.onnx@1": repeated(pair.lr),
        "original": pair.hr,
    }
    assert list(page.pictures) == list(wanted)
    for name, pixels in wanted.items():
        np.testing.assert_array_equal(page.pictures[name], pixels)
    report = json.loads(out)
    assert code == 0 and report["scale"] == SCALE
    assert report["bytes"] == Path("page.html").stat().st_size
    assert err.startswith("page.html: 0.0 MB, 4 pictures of 38x44\n")
    for figures in report["figures"]:
        name = figures["method"]
        psnr = psnr_y(wanted[name], pair.hr, SCALE)
        ssim = ssim_y(wanted[name], pair.hr, SCALE)
        assert (figures["psnr_y"], figures["ssim_y"]) == (psnr, ssim)
        row = page.texts.index(name)
        assert page.texts[row : row + 3] == [name, f"{psnr:.2f}", f"{ssim:.4f}"]
    assert [figures["method"] for figures in report["figures"]] == ["bicubic", "twice.onnx@1"]


def test_page_reaches_out_to_nothing(command, photo: Path) -> None:
    command(photo, "--model", "bicubic", "--against", "student", "--html", "page.html")
    page = Page(Path("page.html"))
    assert all(address.startswith("data:") for address in page.addresses)
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert page.policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    text = re.sub(r"base64,[^\"]*", "", Path("page.html").read_text("utf-8"))
    assert not re.search(r"https?:|//\w|@import|url\(", text)


def test_low_takes_the_picture_as_it_is(command, photo: Path, foreign: str) -> None:
    code, out, _ = command(photo, "--low", "--model", foreign, "--html", "page.html")
    page = Page(Path("page.html"))
    lr = read_rgb(photo)
    assert (code, out) == (0, "")
    assert list(page.pictures) == ["input", "bicubic", "twice.onnx@1"]
    np.testing.assert_array_equal(page.pictures["input"], lr)
    np.testing.assert_array_equal(page.pictures["twice.onnx@1"], repeated(lr))
    assert not page.texts


def test_crop_takes_a_part(command, photo: Path, foreign: str) -> None:
    arguments = photo, "--crop", "3,5,30,32", "--model", foreign, "--html", "page.html"
    code, out, _ = command(*arguments)
    assert code == 0 and "PSNR" in out and "bicubic" in out
    original = Page(Path("page.html")).pictures["original"]
    np.testing.assert_array_equal(original, read_rgb(photo)[5:37, 3:33])


def test_the_profile_is_kept_where_it_fits(command, photo: Path, foreign: str) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.open(photo).save("tagged.png", icc_profile=profile)
    command("tagged.png", "--model", foreign, "--html", "page.html")
    assert Page(Path("page.html")).profiles == {profile}


def test_names_are_texts(command, photo: Path, foreign: str) -> None:
    name = "<img src=x onerror=alert(1)>&\"'.png"
    photo.rename(name)
    method = Path(foreign[:-2]).rename("<b>$script.onnx")
    code, _, _ = command(name, "--model", f"{method}@1", "--html", "page.html")
    page = Page(Path("page.html"))
    assert code == 0
    assert page.title == f"{name}: comparison"
    assert not page.handlers and len(page.addresses) == 4
    assert "<b>$script.onnx@1" in page.pictures


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("missing.png --html p.html", 2, "missing.png does not exist"),
        ("text.png --html p.html", 1, "text.png is not a PNG"),
        ("clear.png --html p.html", 1, "clear.png has transparency"),
        ("photo.png --html photo.png --overwrite", 2, "photo.png must end in .html"),
        ("photo.png --html there.html", 2, "there.html exists; allow that with --overwrite"),
        ("photo.png --html nowhere/p.html", 2, "nowhere is not a folder"),
        ("photo.png --html p.html --crop 1,2,3", 2, "--crop takes X,Y,W,H"),
        ("photo.png --html p.html --crop 1,2,0,3", 2, "--crop takes X,Y,W,H"),
        ("photo.png --html p.html --crop 10,0,29,20", 2, "reaches beyond the 38x45 pixels"),
        (
            "photo.png --html p.html --crop 0,0,20,16",
            2,
            "the part of photo.png cannot be measured: 20x16 pixels leave fewer than 11 a side",
        ),
        ("photo.png --html p.html --against bicubic,", 2, "separated by single commas"),
        ("photo.png --html p.html --model bicubic", 2, "named twice"),
        ("photo.png --html p.html --model text.onnx", 5, "text.onnx is no ONNX file"),
        ("photo.png --html p.html --against text.onnx@1", 5, "no ONNX file or damaged"),
        ("photo.png --html p.html --against twice.onnx@3", 2, "@1 for 0 to 1"),
        ("photo.png --html p.html --against twice.onnx@1", 5, "the scales differ"),
        ("photo.png --html p.html --against same.onnx@1", 5, "not enlarged by a whole number"),
        ("large.png --html p.html", 2, "at most 16 megapixels each"),
        ("photo.png --html p.html --model pupil", 2, "no model named pupil"),
    ],
)
def test_failures_are_one_line_and_leave_nothing(
    command, photo: Path, foreign: str, arguments: str, code: int, message: str
) -> None:
    for name in ("text.png", "text.onnx", "there.html"):
        Path(name).write_text("text")
    Image.new("RGBA", (40, 40)).save("clear.png")
    if "large" in arguments:
        Image.new("L", (4001, 4000)).save("large.png")
    save_foreign(Path("same.onnx"), "Flatten")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    found, out, err = command(*arguments.split())
    assert (found, out) == (code, "")
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_overwrite_replaces(command, photo: Path, foreign: str) -> None:
    Path("page.html").write_text("old")
    assert command(photo, "--model", foreign, "--html", "page.html", "--overwrite")[0] == 0
    assert Page(Path("page.html")).pictures


def test_works_without_torch_and_onnx(photo: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules.update(torch=None, onnx=None, safetensors=None)\n"
        f"sys.argv = ['dvmsr', 'compare', {str(photo)!r}, '--low']\n"
        "sys.argv += ['--html', 'page.html']\n"
        "from dvmsr.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert list(Page(Path("page.html")).pictures) == ["input", "bicubic", "student"]
