"""One HTML file that shows pictures of one size over each other, with everything in it.

The pictures are in it as lossless WebP, so that what the page shows is what was computed. Its
policy allows no connection and no script but its own.
"""

import base64
import hashlib
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dvmsr import viewer

MAX_PIXELS = 16_000_000
"""Of a picture: a browser holds each decoded, and a page has several."""
MAX_SIDE = 16_383
"""WebP's limit."""
_FOLDER = Path(__file__).parent
_CAPTION = "PSNR in dB and SSIM on luma against the original, without {} pixels at the border"


@dataclass(frozen=True)
class Picture:
    """What one pane shows."""

    name: str
    pixels: NDArray[np.uint8]
    """RGB (H, W, 3), or the input, smaller by a whole number, whose pixels are shown as squares."""
    psnr: float | None = None
    """In dB; None where there is nothing to compare with."""
    ssim: float | None = None


def render(
    title: str,
    summary: str,
    pictures: Sequence[Picture],
    first: tuple[int, int],
    border: int,
    profile: bytes | None = None,
) -> bytes:
    """The page, in UTF-8.

    Args:
        title, summary: texts above the pictures.
        pictures: at least two.
        first: which of them are A and B, on the left and the right of the slider, at first.
        border: pixels that the figures leave out at each side.
        profile: the ICC profile of the pictures.
    """
    height = max(picture.pixels.shape[0] for picture in pictures)
    width = max(picture.pixels.shape[1] for picture in pictures)
    script = f"{viewer.script()}viewer.open();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    a, b = first
    panes = "\n".join(_pane(picture, height, width, profile) for picture in pictures)
    page = Template((_FOLDER / "page.html").read_text("utf-8")).substitute(
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",
        title=html.escape(title),
        summary=html.escape(summary),
        style=viewer.style() + (_FOLDER / "page.css").read_text("utf-8"),
        viewer=viewer.markup(
            f'<div id="pictures" data-width="{width}" data-height="{height}" '
            f'data-a="{a}" data-b="{b}">\n{panes}\n</div>'
        ),
        figures=_table(pictures, border),
        script=script,
    )
    return page.encode(errors="replace")  # of names that are no text


def _pane(picture: Picture, height: int, width: int, profile: bytes | None) -> str:
    name = html.escape(picture.name)
    squares = ' class="input"' if picture.pixels.shape[0] < height else ""
    figure = "" if picture.psnr is None else f" {_decibels(picture.psnr)} dB"
    return (
        f'<figure{squares}><img alt="{name}" width="{width}" height="{height}" '
        f'src="data:image/webp;base64,{_webp(picture.pixels, profile)}">'
        f'<figcaption><span class="name">{name}</span>{figure}</figcaption></figure>'
    )


def _webp(pixels: NDArray[np.uint8], profile: bytes | None) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, method=2, icc_profile=profile)
    return base64.b64encode(buffer.getvalue()).decode()


def _table(pictures: Sequence[Picture], border: int) -> str:
    """The figures of the pictures that have some, the best in bold; empty where none has."""
    rows = [(p.name, p.psnr, p.ssim) for p in pictures if p.psnr is not None and p.ssim is not None]
    if not rows:
        return ""
    best_psnr, best_ssim = max(row[1] for row in rows), max(row[2] for row in rows)
    lines = "\n".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        f"{_cell(_decibels(psnr), psnr == best_psnr)}{_cell(f'{ssim:.4f}', ssim == best_ssim)}</tr>"
        for name, psnr, ssim in rows
    )
    return (
        f'<aside aria-label="Figures"><table><caption>{_CAPTION.format(border)}</caption>'
        '<thead><tr><th scope="col">method</th><th scope="col">PSNR</th><th scope="col">SSIM</th>'
        f"</tr></thead>\n<tbody>\n{lines}\n</tbody></table></aside>"
    )


def _cell(text: str, best: bool) -> str:
    return f'<td class="best">{text}</td>' if best else f"<td>{text}</td>"


def _decibels(psnr: float) -> str:
    return "∞" if psnr == math.inf else f"{psnr:.2f}"
