from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from dvmsr.errors import UsageError
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.infer.plan import plan
from dvmsr.runtime.storage.places import is_pattern, place, state, stored
from dvmsr.runtime.storage.remote import Remote


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """A store in memory with pictures, by name alone, in the folder `in`."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    for name in ("a.png", "b/c.JPG", "b/d/e.tif", "b/.f.png", ".g/h.png", "notes.txt"):
        files.pipe(f"/bucket/in/{name}", b"")
    yield files
    files.store.clear()


def planned(*inputs: str, output: str | None = None) -> list[tuple[str, str]]:
    return [(str(job.source), str(job.target)) for job in plan(inputs, output, 4)]


@pytest.mark.parametrize(
    ("inputs", "output", "pairs"),
    [
        (
            ["memory://bucket/in"],
            "memory://bucket/out",
            [("in/a.png", "out/a_x4.png"), ("in/b/c.JPG", "out/b/c_x4.JPG"),
             ("in/b/d/e.tif", "out/b/d/e_x4.tif")],
        ),
        (["memory://bucket/in/b/d/"], None, [("in/b/d/e.tif", "in/b/d/e_x4.tif")]),
        (["memory://bucket/in/a.png"], "memory://bucket/x.jpg", [("in/a.png", "x.jpg")]),
        (["memory://bucket/in/a.png"], "memory://bucket/x/", [("in/a.png", "x/a_x4.png")]),
        (["memory://bucket/in/a.png"], "memory://bucket/in", [("in/a.png", "in/a_x4.png")]),
        (["memory://bucket/in/*/*.JPG"], "memory://bucket/o", [("in/b/c.JPG", "o/b/c_x4.JPG")]),
        (["memory://bucket/in/b/**/*.*"], "memory://bucket/o/",
         [("in/b/c.JPG", "o/c_x4.JPG"), ("in/b/d/e.tif", "o/d/e_x4.tif")]),
        (["memory://bucket/i?/b"], "memory://bucket/o",
         [("in/b/c.JPG", "o/in/b/c_x4.JPG"), ("in/b/d/e.tif", "o/in/b/d/e_x4.tif")]),
    ],
    ids=["folder", "beside", "to object", "to new folder", "to folder", "pattern", "deep pattern",
         "folder by pattern"],
)  # fmt: skip
def test_stores_are_searched_like_folders(
    store: object, inputs: list[str], output: str | None, pairs: list[tuple[str, str]]
) -> None:
    bucket = "memory://bucket/"
    assert planned(*inputs, output=output) == [(bucket + a, bucket + b) for a, b in pairs]


def test_results_in_a_folder_that_is_searched_are_left_out(
    store: fsspec.AbstractFileSystem,
) -> None:
    store.pipe("/bucket/in/out/a_x4.png", b"")
    store.pipe("/bucket/in/b/c_x4.JPG", b"")
    folder = "memory://bucket/in"
    assert len(planned(folder, output=f"{folder}/out")) == 4
    assert (f"{folder}/b/c.JPG", f"{folder}/b/c_x4.JPG") in planned(folder)
    assert len(planned(f"{folder}/b")) == 2


def test_from_stores_to_files_and_back(store: object, tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    assert planned("memory://bucket/in/b", output=f"{tmp_path}/out") == [
        ("memory://bucket/in/b/c.JPG", f"{tmp_path}/out/c_x4.JPG"),
        ("memory://bucket/in/b/d/e.tif", f"{tmp_path}/out/d/e_x4.tif"),
    ]
    assert (tmp_path / "out" / "d").is_dir()
    assert planned(tmp_path.as_uri(), output="memory://bucket/o") == [
        (f"{tmp_path}/x.png", "memory://bucket/o/x_x4.png")
    ]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("file:///a/b%20c.png", "/a/b c.png"),
        ("FILE://localhost/a.png", "/a.png"),
        ("a://b", None),
        ("a/b.png", "a/b.png"),
        ("c:d.png", "c:d.png"),
    ],
)
def test_names_of_files(name: str, path: str | None) -> None:
    assert place(name) == (Remote(name) if path is None else Path(path))


def test_schemes_may_be_in_capitals(store: object) -> None:
    assert place("HTTPS://Host/A.png?b") == Remote("https://Host/A.png?b")
    expected = [("memory://bucket/in/a.png", "memory://bucket/x/a_x4.png")]
    assert planned("MEMORY://bucket/in/a.png", output="Memory://bucket/x/") == expected
    assert planned("MEMORY://bucket/in/*.png", output="Memory://bucket/x/") == expected


def test_a_page_has_the_name_of_its_path(store: object) -> None:
    page = Remote("https://host/my%20photo.JPG?w=100&h=[2]")
    assert (page.name, page.stem, page.suffix) == ("my photo.JPG", "my photo", ".JPG")
    assert not is_pattern(page.url)
    expected = [(page.url, "memory://bucket/my photo_x4.JPG")]
    assert planned(page.url, output="memory://bucket") == expected


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["https://host/a.png"], None, "https:// is for reading; name a place"),
        (["a.png"], "https://host/out/", "https:// is for reading; name a place"),
        (["a.png"], "memory://other/", "memory://other does not exist; create it"),
        (["a.png"], "memory://bucket/a.psd", "a.psd must end in one of .png"),
        (["a.png", "b.png"], "memory://bucket/a.png", "names a file; for several"),
        (["memory://bucket/in/*.bmp"], None, "nothing matches memory://bucket/in/*.bmp"),
        (["memory://b*/in"], None, "has a pattern in place of a bucket"),
        (["memory://bucket/none/"], None, "memory://bucket/none/ has no images"),
        (["zip://a.png::memory://bucket/a.zip"], None, "is a chain of URLs"),
        (["memory://[::1]/a.png::memory://bucket/a.zip"], None, "is a chain of URLs"),
        (["what://bucket/a.png"], None, "what://bucket/a.png has an unknown scheme"),
        (["file://host/a.png"], None, "names the machine host; write file:///path"),
        (["file:///etc/%00"], None, "file:///etc/%00 holds a character of code 0"),
        (["a.png"], "file:///etc/%00.png", "file:///etc/%00.png holds a character of code 0"),
        (["a\0.png"], None, "a%00.png holds a character of code 0"),
        (["https://host/%00.png"], None, "https://host/%00.png holds a character of code 0"),
        (["file://"], None, "file:// names no file; write file:///path"),
        (["file://[::1/a.png"], None, "is no valid URL (Invalid IPv6 URL)"),
        (["https://[1/a.png"], None, "is no valid URL (Invalid IPv6 URL)"),
        (["https:///a.png"], None, "https:///a.png names nothing in a store"),
        (["memory://"], None, "memory:// names nothing in a store"),
        (["a.png"], "s3:///", "s3:/// names nothing in a store"),
        *(([f"{kind}://a/b.png"], None, f"{kind}://a/b.png names no store; name the place")
          for kind in ("dir", "DATA", "zip", "simplecache", "reference")),
        (["memory://bucket/in/a.png", "memory://bucket/in/b/../a.png"], "o", "would both be"),
    ],
)  # fmt: skip
def test_refuses_before_any_work(
    store: object, inputs: list[str], output: str | None, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        planned(*inputs, output=output)
    assert message in str(caught.value)


def test_no_store_is_asked_for_a_bucket_that_is_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvmsr.runtime.storage.places.exists", lambda place: pytest.fail("asked"))
    with pytest.raises(UsageError, match="has a pattern in place of a bucket; name one"):
        planned("s3://*/a.png")


def test_a_changed_object_is_known(store: fsspec.AbstractFileSystem) -> None:
    object = place("memory://bucket/in/a.png")
    before = state(object)
    assert before["bytes"] == 0 and state(object) == before
    store.pipe("/bucket/in/a.png", b"")
    assert state(object) != before
    assert state(place("memory://bucket/none.png")) == {}


def test_jobs_of_both_kinds_are_equal_by_value() -> None:
    assert Job(Remote("s3://b/a"), Path("c")) == Job(place("s3://b/a"), place("c"))


def test_addresses_of_ipv6_are_no_chains() -> None:
    assert str(stored("http://[::1]:9/a.png")) == "http://[::1]:9/a.png"
