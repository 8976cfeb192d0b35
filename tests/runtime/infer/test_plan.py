from __future__ import annotations

from pathlib import Path

import pytest

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.runtime.infer.plan import plan


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photo.JPG, scan, and in two folders more; names only."""
    monkeypatch.chdir(tmp_path)
    for name in [
        "photo.JPG",
        "scan",
        "a/x.png",
        "a/y.tif",
        "a/notes.txt",
        "a/.hidden.png",
        "b/x.png",
    ]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "a" / "folder.png").mkdir()
    (tmp_path / "empty").mkdir()
    return tmp_path


def planned(inputs: list[str], output: str | None = None, scale: int = 4) -> list[tuple[str, str]]:
    return [(str(job.source), str(job.target)) for job in plan(inputs, output, scale)]


IN_A = ["a/x.png", "a/y.tif"]


@pytest.mark.parametrize(
    ("inputs", "output", "sources", "targets"),
    [
        (["photo.JPG"], None, ["photo.JPG"], ["photo_x4.JPG"]),
        (["a/x.png"], None, ["a/x.png"], ["a/x_x4.png"]),
        (["scan"], None, ["scan"], ["scan_x4.png"]),
        (["missing.png"], None, ["missing.png"], ["missing_x4.png"]),
        (["photo.JPG"], "big.webp", ["photo.JPG"], ["big.webp"]),
        (["photo.JPG"], "empty", ["photo.JPG"], ["empty/photo_x4.JPG"]),
        (["photo.JPG"], "new/", ["photo.JPG"], ["new/photo_x4.JPG"]),
        (["a"], None, IN_A, ["a/x_x4.png", "a/y_x4.tif"]),
        (["a"], "new/deep", IN_A, ["new/deep/x_x4.png", "new/deep/y_x4.tif"]),
        (["a/x.png", "scan"], "new", ["a/x.png", "scan"], ["new/x_x4.png", "new/scan_x4.png"]),
        (["a/x.png", "./a/x.png", "a"], None, IN_A, ["a/x_x4.png", "a/y_x4.tif"]),
        (["*/x.png"], "new", ["a/x.png", "b/x.png"], ["new/a/x_x4.png", "new/b/x_x4.png"]),
        (["./*/x.png"], None, ["a/x.png", "b/x.png"], ["a/x_x4.png", "b/x_x4.png"]),
        (["[a]"], "new", IN_A, ["new/a/x_x4.png", "new/a/y_x4.tif"]),
        (["[a]/../b/x.png"], "new", ["a/../b/x.png"], ["new/x_x4.png"]),
    ],
    ids=[
        "file", "file elsewhere", "no extension", "missing", "to file", "to folder",
        "to new folder", "folder", "folder to folder", "files to folder", "twice",
        "pattern", "pattern beside", "folder by pattern", "pattern that leads out",
    ],
)  # fmt: skip
def test_names_results(
    inputs: list[str], output: str | None, sources: list[str], targets: list[str]
) -> None:
    assert planned(inputs, output) == list(zip(sources, targets, strict=True))
    if output is not None and output.startswith("new"):
        assert Path(output).is_dir()


def test_videos_in_a_folder_are_told_of(files: Path) -> None:
    (files / "b" / "clip.mp4").touch()
    with pytest.warns(UserWarning, match="^b has 1 video, passed over; videos count when they are"):
        assert planned(["b"]) == [("b/x.png", "b/x_x4.png")]


def test_pictures_that_are_not_read_are_told_of(files: Path) -> None:
    for name in ("b/1.HEIC", "b/2.heic", "b/3.jxl", "b/.4.jxl", "b/5.txt"):
        (files / name).touch()
    told = r"^b has 3 pictures of kinds that are not read \(\.heic, \.jxl\), passed over; convert"
    with pytest.warns(UserWarning, match=told):
        assert planned(["b"]) == [("b/x.png", "b/x_x4.png")]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".jfi", ".dib", ".apng", ".JFIF"])
def test_other_names_of_formats(files: Path, suffix: str) -> None:
    (files / "empty" / f"p{suffix}").touch()
    assert planned(["empty"]) == [(f"empty/p{suffix}", f"empty/p_x4{suffix}")]


def test_a_name_may_carry_the_own_extension(files: Path) -> None:
    (files / "a" / "x.jpg").touch()
    jobs = plan(["a"], "o", 4, "{stem}_{suffix}_x{scale}{ext}", ".webp")
    assert [job.target.name for job in jobs] == [
        "x_jpg_x4.webp",
        "x_png_x4.webp",
        "y_tif_x4.webp",
    ]
    with pytest.raises(UsageError, match=r"tell them apart by --name '\{stem\}_\{suffix\}_x"):
        plan(["a"], "o", 4, extension=".webp")


@pytest.mark.parametrize(
    "template",
    ["{stem:>100000000}{ext}", "{stem!r}{ext}", "{stem}{scale:09}{ext}", "{stem}{ext:s}", "{stem}"],
)
def test_names_have_no_widths(template: str) -> None:
    with pytest.raises(UsageError, match=r"must (contain .* just so|be a file name that ends)"):
        plan(["photo.JPG"], None, 4, template)


def test_names_carry_the_scale() -> None:
    assert planned(["photo.JPG"], scale=3) == [("photo.JPG", "photo_x3.JPG")]


def test_a_folder_may_be_processed_twice(files: Path) -> None:
    (files / "a" / "x_x4.png").touch()
    assert planned(["a"]) == [("a/x.png", "a/x_x4.png"), ("a/y.tif", "a/y_x4.tif")]


def test_a_result_may_be_enlarged_by_name(files: Path) -> None:
    (files / "a" / "x_x4.png").touch()
    assert planned(["a/x_x4.png"]) == [("a/x_x4.png", "a/x_x4_x4.png")]


@pytest.mark.parametrize(
    ("inputs", "output", "kind", "complaint"),
    [
        (["a/x.png", "b/x.png"], "new", UsageError, "a/x.png and b/x.png would both"),
        (["a/x.png", "a/x_x4.png"], None, UsageError, "both an input and the result of a/x.png"),
        (["photo.JPG"], "new", UsageError, "new has no extension; give it one, or write new/"),
        (["photo.JPG"], "a/new.psd", UsageError, "a/new.psd must end in one of .png"),
        (["photo.JPG", "a"], "photo.JPG", UsageError, "photo.JPG names a file; for several"),
        (["a"], "new.png", UsageError, "new.png names a file; for several"),
        (["a/x.png", "b/x.png"], "new.png", UsageError, "new.png names a file; for several"),
        (["empty"], None, UsageError, "empty has no images"),
        (["photo.JPG", "a"], "photo.JPG/deep", DvmsrError, "photo.JPG/deep cannot be created"),
    ],
    ids=[
        "collision",
        "chain",
        "no extension",
        "psd",
        "file",
        "file name",
        "equal names into a file",
        "no images",
        "below a file",
    ],
)
def test_refuses_before_any_work(
    inputs: list[str], output: str | None, kind: type[DvmsrError], complaint: str
) -> None:
    with pytest.raises(kind) as caught:
        plan(inputs, output, 4)
    assert complaint in str(caught.value)
    assert not Path("new").exists()


def test_a_path_that_cannot_be_looked_at_is_left_to_its_reader(files: Path) -> None:
    """A name that is too long, a link to itself, and what lies in a closed folder."""
    long = "n" * 300 + "/y.png"
    (files / "b" / "circle.png").symlink_to("circle.png")
    (files / "b").chmod(0o600)
    try:
        found = planned(["b/x.png", "b", long, "photo.JPG"], "new")
    finally:
        (files / "b").chmod(0o700)
    assert [source for source, _ in found] == ["b/x.png", "b/circle.png", long, "photo.JPG"]
