"""The page of `dvmsr compare` in a real browser: by keyboard, mouse and touch, and offline."""

from __future__ import annotations

import io
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Watched, chromium
from numpy.typing import NDArray
from PIL import Image

from dvmsr.eval.page import Picture, render

HEIGHT, WIDTH = 160, 240
NAMES = ["input", "<img src=x onerror=document.title='owned'>", "same", "model", "original"]


def pictures() -> list[Picture]:
    """Colours that differ by 3 between `model` and `original`; two equal ones."""
    noise = np.random.default_rng(0).integers(0, 240, (HEIGHT, WIDTH, 3), np.uint8)
    pixels = [noise[::2, ::2], noise, noise.copy(), noise + np.uint8(3), noise + np.uint8(6)]
    return [Picture(name, each) for name, each in zip(NAMES, pixels, strict=True)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(render("</title><b>", "<i>&", pictures(), (1, 3), 2))
    return path


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page, opened; at the end it must have asked for nothing and complained of nothing."""
    context = browser.new_context(viewport={"width": 1000, "height": 700}, has_touch=True)
    opened = context.new_page()
    watched = Watched.of(opened)
    opened.goto(page_file.as_uri())
    opened.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth)")
    opened.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    yield opened
    context.close()
    assert not watched.complaints
    assert [url[:16] for url in watched.requests if not url.startswith("data:")] == [
        page_file.as_uri()[:16]
    ]


class Names(HTMLParser):
    """What a page's elements ask for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.asked += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_file_asks_for_no_other_and_no_text_is_markup(page_file: Path) -> None:
    text = page_file.read_text()
    assert "<title>&lt;/title&gt;&lt;b&gt;: comparison</title>" in text
    asked = Names(text).asked
    assert len(asked) == len(NAMES)
    assert all(each.startswith("data:image/webp;base64,") for each in asked)


def boxes(page: Any) -> list[dict[str, float]]:
    """Place and size of each picture that is shown, within its pane."""
    return page.evaluate(
        """() => [...document.querySelectorAll('figure')].filter(f => f.offsetParent).map(f => {
            const pane = f.getBoundingClientRect();
            const box = f.querySelector('img').getBoundingClientRect();
            return {x: box.x - pane.x, y: box.y - pane.y, width: box.width, height: box.height};
        })"""
    )


def wheel(page: Any, distance: int) -> None:
    """Unlike those of keys, this event is not waited for by the driver."""
    before = page.locator("#zoom").evaluate("output => output.value")
    page.mouse.wheel(0, distance)
    page.wait_for_function("before => document.getElementById('zoom').value !== before", arg=before)


def value(page: Any) -> int:
    return int(page.get_attribute("#divider", "aria-valuenow"))


def shown(page: Any) -> NDArray[np.uint8]:
    picture = Image.open(io.BytesIO(page.locator("#stage").screenshot()))
    return np.asarray(picture.convert("RGB"))


def test_texts_are_texts(page: Any) -> None:
    assert page.title() == "</title><b>: comparison"
    assert page.inner_text("header p") == "<i>&"
    assert page.locator("figcaption .name").all_text_contents() == NAMES
    assert page.locator("#a option").all_text_contents() == NAMES
    assert page.locator("figure").count() == page.locator("img").count() == len(NAMES)


def test_slider_moves_by_keyboard(page: Any) -> None:
    assert value(page) == 50
    before = page.locator("#divider").bounding_box()
    for _ in range(12):  # it is reached by Tab alone
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "divider":
            break
    page.keyboard.press("ArrowRight")
    assert value(page) == 52
    assert page.locator("#divider").bounding_box()["x"] > before["x"]
    page.keyboard.press("End")
    assert value(page) == 100
    page.keyboard.press("ArrowRight")
    assert value(page) == 100
    page.keyboard.press("Home")
    assert value(page) == 0
    page.keyboard.press("PageUp")
    assert value(page) == 10


def test_slider_shows_a_on_the_left_and_b_on_the_right(page: Any) -> None:
    page.select_option("#b", label="original")
    height, width = shown(page).shape[:2]
    middle = slice(height // 2, height // 2 + 20)
    half = shown(page)[middle]
    page.locator("#divider").focus()
    page.keyboard.press("End")
    a = shown(page)[middle]
    page.keyboard.press("Home")
    b = shown(page)[middle]
    assert (a != b).any()
    left, right = slice(30, width // 2 - 30), slice(width // 2 + 30, width - 30)
    np.testing.assert_array_equal(half[:, left], a[:, left])
    np.testing.assert_array_equal(half[:, right], b[:, right])


def test_slider_follows_mouse_and_touch(page: Any) -> None:
    stage = page.locator("#stage").bounding_box()
    middle = stage["y"] + stage["height"] / 2
    page.mouse.move(stage["x"] + stage["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(stage["x"] + 0.25 * stage["width"], middle, steps=5)
    page.mouse.up()
    assert value(page) == 25
    page.touchscreen.tap(stage["x"] + 0.75 * stage["width"], middle)
    assert value(page) == 75


@pytest.mark.parametrize("view", ["Slider", "All", "Difference"])
def test_zoom_and_position_are_common_to_all_panes(page: Any, view: str) -> None:
    page.get_by_role("button", name=view).click()
    page.keyboard.press("1")
    (first, *others) = boxes(page)
    assert len(others) == (len(NAMES) - 1 if view == "All" else 1)
    assert (first["width"], first["height"]) == (WIDTH, HEIGHT)
    assert others == [first] * len(others)
    page.keyboard.press("+")
    page.keyboard.press("Shift+ArrowRight")
    stage = page.locator("#stage").bounding_box()
    page.mouse.move(stage["x"] + 40, stage["y"] + 40)
    wheel(page, -100)
    (after, *others) = boxes(page)
    assert after["width"] == pytest.approx(WIDTH * 1.25 * 2**0.5, rel=1e-3)
    assert after["x"] != first["x"]
    for other in others:
        assert other == pytest.approx(after, abs=1e-2)
    page.keyboard.press("0")
    fitted = boxes(page)[0]
    pane = page.locator("figure.a").bounding_box()
    assert max(fitted["width"] / pane["width"], fitted["height"] / pane["height"]) == (
        pytest.approx(1, abs=1e-3)
    )


def test_wheel_keeps_what_is_under_the_pointer(page: Any) -> None:
    stage = page.locator("#stage").bounding_box()
    x, y = 0.6 * stage["width"], 0.6 * stage["height"]

    def under() -> tuple[float, float]:
        box = boxes(page)[0]
        return (x - box["x"]) / box["width"], (y - box["y"]) / box["height"]

    before = under()
    page.mouse.move(stage["x"] + x, stage["y"] + y)
    wheel(page, -150)
    assert under() == pytest.approx(before, abs=1e-2)


def test_dragging_moves_the_picture(page: Any) -> None:
    stage = page.locator("#stage").bounding_box()
    before = boxes(page)[0]
    page.mouse.move(stage["x"] + 100, stage["y"] + 100)
    page.mouse.down()
    page.mouse.move(stage["x"] + 130, stage["y"] + 90, steps=3)
    page.mouse.up()
    after = boxes(page)[0]
    assert (after["x"] - before["x"], after["y"] - before["y"]) == pytest.approx((30, -10), abs=1)
    assert value(page) == 50


def test_two_fingers_zoom(page: Any) -> None:
    stage = page.locator("#stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + 150
    before = boxes(page)[0]
    touch = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 80), ("touchMove", 160), ("touchEnd", None)):
        places = () if apart is None else (x - apart / 2, x + apart / 2)
        points = [{"x": place, "y": y, "id": k} for k, place in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    after = boxes(page)[0]
    assert after["width"] == pytest.approx(2 * before["width"], rel=0.05)
    assert value(page) == 50


@pytest.mark.parametrize("zoom", [0, 1, 2])
def test_difference_of_equal_pictures_is_zero(page: Any, zoom: int) -> None:
    page.get_by_role("button", name="Difference").click()
    page.select_option("#a", label=NAMES[1])
    page.select_option("#b", label="same")
    page.locator("#gain").fill("6")
    for _ in range(zoom):
        page.locator("#in").click()
    (box, _) = boxes(page)
    picture = shown(page)
    left, right = max(int(box["x"]) + 2, 9), int(box["x"] + box["width"]) - 2
    assert not picture[9:-9, left:right].any()


def test_difference_is_amplified(page: Any) -> None:
    page.get_by_role("button", name="Difference").click()
    page.select_option("#a", label="original")
    page.select_option("#b", label="model")
    for exponent in (0, 3, 6):
        page.locator("#gain").fill(str(exponent))
        middle = shown(page)[200:300, 300:400]
        assert middle == pytest.approx(3 * 2**exponent, abs=1)
        assert page.inner_text("#gain-value") == f"{2**exponent}×"


def test_choosing_the_same_picture_exchanges_both(page: Any) -> None:
    page.select_option("#a", label="model")
    assert page.locator("#b").input_value() == "1"
    assert page.locator("figure.a .name").text_content() == "model"


def test_everything_has_a_name_and_keys_leave_fields_alone(page: Any) -> None:
    tree = page.locator("body").aria_snapshot()
    for role in ('slider "Boundary between A and B"', 'button "Zoom in"', 'combobox "A'):
        assert role in tree
    page.locator("#a").focus()
    page.keyboard.press("ArrowRight")
    assert value(page) == 50


@pytest.mark.parametrize("size", [(390, 800), (1400, 800)], ids=["390x800", "1400x800"])
def test_fits_narrow_and_wide_windows(page: Any, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    box = page.locator("#stage").bounding_box()
    assert box["width"] > 300 and box["height"] > 300
    page.get_by_role("button", name="All").click()
    page.keyboard.press("1")
    assert {each["width"] for each in boxes(page)} == {WIDTH}


def test_follows_the_colour_scheme(page: Any) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(21, 23, 26)"]


def test_without_scripts_the_pictures_are_there(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(page_file.as_uri())
    assert opened.locator("img:visible").count() == len(NAMES)
    assert opened.locator("button:visible").count() == 0
    context.close()
