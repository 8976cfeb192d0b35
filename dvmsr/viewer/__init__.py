"""The part of a page that shows pictures over each other: a slider, zoom, the difference.

By mouse, touch and keyboard. `viewer.open()` of the script shows the figures that are in
`#pictures`, whose `data-width` and `data-height` are pixels of the largest, and `data-a` and
`data-b` the numbers of those on the left and the right of the slider.
"""

from pathlib import Path
from string import Template

_FOLDER = Path(__file__).parent


def script() -> str:
    """For the end of the page; defines `viewer`."""
    return _read("viewer.js")


def style() -> str:
    """With the colours of the page, for light and dark."""
    return _read("viewer.css")


def markup(pictures: str) -> str:
    """The section `#viewer`.

    Args:
        pictures: the HTML of `#pictures`.
    """
    return Template(_read("viewer.html")).substitute(pictures=pictures).rstrip()


def _read(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")
