"""The page in a real browser: pictures dropped, seen, downloaded, and all that can go wrong."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Watched, chromium
from PIL import Image
from processes import LIMIT
from service import file_of, serving

from dvmsr.runtime.serving import site

PICTURE = file_of(40, 60)
TOKEN = "0123456789abcdef"


def test_its_files_ask_for_no_others() -> None:
    files = site.files()
    page = files["/"][0].decode()
    assert 'id="viewer"' in page and "style=" not in page and "<script>" not in page
    for content, _ in files.values():
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def url(model_files: list[Path]) -> Iterator[str]:
    models = [word for path in model_files for word in ("--model", path)]
    with serving(*models, "--max-pixels", 5000, "--max-bytes", "200K") as (found, _):
        yield found


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """The page, opened; at the end it must have asked its service alone, and no script failed."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(1000 * LIMIT)
    opened = context.new_page()
    watched = Watched.of(opened)
    opened.goto(url)
    opened.locator("#taken:not(:empty)").wait_for()
    yield opened
    context.close()
    refused = "Failed to load resource: "  # of an answer that the page shows as a sentence
    assert not [text for text in watched.complaints if not text.startswith(refused)]
    assert all(each.startswith((url, f"blob:{url}")) for each in watched.requests)


def hand_over(page: Any, event: str, **files: bytes) -> None:
    """Files as a mouse drops them, or a keyboard pastes them; `_` in their names is a dot."""
    page.evaluate(
        """([kind, files]) => {
            const data = new DataTransfer();
            for (const [name, content] of files) {
                const bytes = Uint8Array.from(atob(content), (sign) => sign.charCodeAt(0));
                data.items.add(new File([bytes], name));
            }
            const event = kind === 'drop'
                ? new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true})
                : new ClipboardEvent(kind, {clipboardData: data, bubbles: true, cancelable: true});
            document.getElementById('drop').dispatchEvent(event);
        }""",
        [
            event,
            [
                (name.replace("_", "."), base64.b64encode(data).decode())
                for name, data in files.items()
            ],
        ],
    )


def downloaded(page: Any, selector: str) -> tuple[str, bytes]:
    """Name and content of what a click downloads."""
    with page.expect_download() as waiting:
        page.locator(selector).click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


@pytest.fixture
def expected(
    infer: Callable[..., int], model_files: list[Path], tmp_path: Path
) -> Callable[[bytes], bytes]:
    """What dvmsr-infer makes of a picture's file."""

    def make(data: bytes, ending: str = ".png") -> bytes:
        source, target = tmp_path / "in.png", tmp_path / f"out{ending}"
        source.write_bytes(data)
        assert infer(source, "-o", target, "--model", model_files[0], "--overwrite") == 0
        return target.read_bytes()

    return make


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_is_enlarged_shown_and_downloaded(
    page: Any, event: str, expected: Callable[[bytes], bytes]
) -> None:
    hand_over(page, event, cat_png=PICTURE)
    page.locator("#stage.live").wait_for()
    assert page.locator("#list .state").text_content().startswith("120 × 80, ")
    names = page.locator("#stage figure .name").all_text_contents()
    assert names == ["before", "after"]
    before, after = page.evaluate(
        "[...document.querySelectorAll('#stage img')].map(i => [i.naturalWidth, i.naturalHeight])"
    )
    assert (before, after) == ([60, 40], [120, 80])
    name, content = downloaded(page, ".save")
    assert name == "cat_x2.png" and content == expected(PICTURE)


def test_what_is_seen_is_the_picture_before_and_after(
    page: Any, expected: Callable[[bytes], bytes]
) -> None:
    hand_over(page, "drop", cat_png=PICTURE)
    page.locator("#stage.live").wait_for()
    page.keyboard.press("1")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#divider", "aria-valuenow") == "52"
    page.locator("#divider").focus()
    page.evaluate(  # so that a pixel of the picture is one of the screen, not parts of two
        "Object.assign(document.getElementById('stage').style,"
        "{position: 'absolute', left: 0, top: 0, width: '800px', height: '600px', zIndex: 1})"
    )
    result = Image.open(io.BytesIO(expected(PICTURE))).convert("RGB")
    squares = Image.open(io.BytesIO(PICTURE)).convert("RGB").resize((120, 80), 0)
    page.keyboard.press("0")
    page.keyboard.press("1")
    box = page.locator("#stage .b img").bounding_box()
    assert (box["x"], box["y"]) == (340, 260)
    for key, picture in (("Home", result), ("End", squares)):
        page.keyboard.press(key)
        screen = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        for place in ((3, 3), (70, 11), (100, 60)):
            seen = screen.getpixel((340 + place[0], 260 + place[1]))
            assert seen == picture.getpixel(place)


def test_several_are_downloaded_as_one_archive(
    page: Any, expected: Callable[[bytes], bytes]
) -> None:
    other = file_of(20, 30)
    page.set_input_files(
        "#files",
        [
            {"name": name, "mimeType": "image/png", "buffer": data}
            for name, data in (("a.png", PICTURE), ("a.png", other), ("ü.png", other))
        ],
    )
    page.locator("li.done").nth(2).wait_for()
    name, content = downloaded(page, "#download-all")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a_x2.png", "a_x2 (2).png", "ü_x2.png"]
        assert archive.read("a_x2.png") == expected(PICTURE)
        assert archive.read("a_x2 (2).png") == archive.read("ü_x2.png") == expected(other)
    assert name == "enlarged.zip"
    page.get_by_role("button", name="Clear").click()
    assert page.locator("#list li").count() == 0 and page.locator("body.empty").count() == 1


def test_another_format_and_again(page: Any) -> None:
    hand_over(page, "drop", cat_png=file_of(9, 9, mode="RGBA"))
    page.locator("li.done").wait_for()
    assert page.get_by_role("button", name="Enlarge again cat.png").count() == 0
    page.select_option("#format", "jpg")
    page.get_by_role("button", name="Enlarge again cat.png").click()
    page.locator(".state", has_text="with a note").wait_for()
    assert "JPEG holds no transparency" in page.locator("#caption").text_content()
    name, content = downloaded(page, ".save")
    assert name == "cat_x2.jpg" and content.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no picture", "The picture is not a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF image"),
        (PICTURE[:500], "The picture is damaged"),
        (file_of(80, 80), "The picture has 6,400 pixels, and the service takes at most 5,000"),
        (bytes(210_000), "The file has 205.1 KiB, and at most 200 KiB are taken."),
    ],
    ids=["no picture", "truncated", "pixels", "bytes"],
)
def test_failures_are_sentences_and_stop_no_others(
    page: Any, content: bytes, sentence: str
) -> None:
    hand_over(page, "drop", bad_png=content, good_png=PICTURE)
    page.locator("li.failed").wait_for()
    page.locator("li.done").wait_for()
    assert page.locator("li.failed .state").text_content().startswith(sentence)
    assert page.locator("#pending-text").text_content().startswith(sentence)
    assert "--" not in page.locator("main").inner_text()


def test_no_broken_picture_is_shown(page: Any) -> None:
    hand_over(page, "drop", page_tif=file_of(8, 8, "TIFF"), bad_png=b"x")
    page.locator("li.done").wait_for()
    page.locator("li.failed").wait_for()
    assert "download it" in page.locator("#pending-text").text_content()
    shown = (
        "[...document.images].filter(i => i.offsetParent).every(i => i.complete && i.naturalWidth)"
    )
    assert page.evaluate(shown)
    assert page.locator(".thumb img").count() == 0


def test_progress_is_shown_and_removing_stops_the_work(page: Any, url: str) -> None:
    page.select_option("#model", "endless.onnx")
    hand_over(page, "drop", first_png=PICTURE, second_png=PICTURE)
    page.locator(".state", has_text="Enlarging").wait_for()
    page.locator(".state", has_text="Waiting for 1 before it").wait_for()
    assert page.locator("progress:visible").count() == 2
    page.locator("#original").wait_for()
    for name in ("first.png", "second.png"):
        page.get_by_role("button", name=f"Remove {name}").click()
    page.select_option("#model", "small.onnx")
    hand_over(page, "drop", third_png=PICTURE)
    page.locator("li.done").wait_for()


def test_by_keyboard_alone(page: Any) -> None:
    hand_over(page, "drop", one_png=PICTURE, two_png=file_of(8, 8))
    page.locator("li.done").nth(1).wait_for()
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if focused.count():
            reached.append(focused.get_attribute("aria-label") or focused.get_attribute("id"))
    buttons = ["Download one.png", "Remove two.png", "Boundary between A and B"]
    assert {"files", "model", "format", "download-all", *buttons} <= set(reached)
    page.locator("#list .choose").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#caption").text_content() == "two_x2.png"


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_fits_narrow_and_wide_windows(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    hand_over(page, "drop", **{f"{'long' * 30}_png": PICTURE})
    page.locator("#stage.live").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#stage").bounding_box()["height"] > 300


def test_follows_the_colour_scheme(page: Any) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(21, 23, 26)"]


def test_asks_for_the_token(browser: Any, model_files: list[Path]) -> None:
    with serving("--model", model_files[0], DVMSR_TOKEN=TOKEN) as (url, _):
        opened = browser.new_page()
        opened.goto(url)
        for token in ("wrong", TOKEN):
            opened.locator("#token").fill(token)
            with opened.expect_response("**/models"):
                opened.get_by_role("button", name="Continue").click()
        opened.locator("#access").wait_for(state="hidden")
        hand_over(opened, "drop", cat_png=PICTURE)
        opened.locator("li.done").wait_for()
        opened.close()


def test_the_description_is_a_page(page: Any, url: str) -> None:
    page.goto(f"{url}/interface")
    assert page.locator("h2").all_inner_texts()[0].split() == ["POST", "/enlarge"]
    assert "student" not in page.content() and "small.onnx, endless.onnx" in page.content()
