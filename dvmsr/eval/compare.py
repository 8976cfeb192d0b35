"""`dvmsr compare`: what several methods make of a picture, as a page to look at."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dvmsr.data.pairs import Pixels, reduce, to_rgb
from dvmsr.errors import UsageError
from dvmsr.eval.evaluate import Method, load_methods, measure
from dvmsr.eval.page import MAX_PIXELS, MAX_SIDE, Picture, render
from dvmsr.runtime.images.decode import read_image
from dvmsr.utils.atomic import check_target, write_atomically
from dvmsr.utils.console import notice, stdout_console, warnings_to
from dvmsr.utils.paths import exists
from dvmsr.utils.progress import progress_bar

INPUT, ORIGINAL = "input", "original"


def compare(
    image: Pixels, methods: Sequence[Method], scale: int, name: str, has_original: bool = True
) -> list[Picture]:
    """The input, what each method makes of it and, where there is one, the original.

    Args:
        image: the original, which is reduced to make the input; or the input, without original.
        name: what messages call it.

    Raises:
        UsageError: if the results would be larger than a page holds, or too small to be measured.
        DvmsrError: if a method fails.
    """
    enlarged = 1 if has_original else scale
    height, width = (enlarged * side for side in image.shape[:2])
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise UsageError(
            f"the pictures of {name} would have {width}x{height} pixels, and a page holds at most "
            f"{MAX_PIXELS // 10**6} megapixels each and {MAX_SIDE} a side; take a part with "
            "--crop X,Y,W,H"
        )
    hr, lr = None, image
    if has_original:
        pair = reduce(image, scale, name)
        hr, lr = pair.hr, pair.lr
    pictures = [Picture(INPUT, lr)]
    with progress_bar("comparing", len(methods)) as advance:
        for method in methods:
            sr = method.enlarge(lr)
            figures = (None, None) if hr is None else measure(name, sr, hr, scale)
            pictures.append(Picture(method.name, sr, *figures))
            advance()
    return pictures if hr is None else [*pictures, Picture(ORIGINAL, hr)]


def run(
    image: Path,
    model: str,
    against: Sequence[str],
    page: Path,
    has_original: bool,
    crop: str | None,
    overwrite: bool,
    as_json: bool,
    trust_engine: bool = False,
    time_limit: float | None = None,
) -> None:
    """The command: compute, write the page, print the figures."""
    box = None if crop is None else _parse_crop(crop)
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{page} must end in .html")
    check_target(page, overwrite)
    with warnings_to():
        picture = read_image(image)
        pixels = to_rgb(_cropped(picture, box, image), str(image))
        methods, scale = load_methods(
            [*_split(against), model], trust_engine=trust_engine, time_limit=time_limit
        )
        name = f"the part of {image}" if box else str(image)
        pictures = compare(pixels, methods, scale, name, has_original)
        height, width = pictures[1].pixels.shape[:2]
        profile = picture.info.get("icc_profile")
        if profile and profile[16:20] != b"RGB ":  # of a gray picture
            profile = None
        rows, columns = pictures[0].pixels.shape[:2]
        origin = ", the original reduced by bicubic interpolation" if has_original else ""
        part = f" Part of the picture at {box[0]}, {box[1]}." if box else ""
        data = render(
            image.name,
            f"{width} × {height} pixels, from an input of {columns} × {rows}{origin}.{part}",
            pictures,
            first=(1, len(methods)),
            border=scale,
            profile=profile,
        )
    write_atomically(page, data, overwrite)
    notice(f"{page}: {len(data) / 1e6:.1f} MB, {len(pictures)} pictures of {width}x{height}")
    if as_json:
        print(json.dumps(_report(page, data, scale, pictures), indent=2, allow_nan=False))
    elif has_original:
        _print_figures(pictures)


def _parse_crop(text: str) -> tuple[int, int, int, int]:
    """`10,20,300,200` -> left, top, width, height."""
    match = re.fullmatch(r"(\d{1,6}),(\d{1,6}),(\d{1,6}),(\d{1,6})", text, re.ASCII)
    if match is None or "0" in (str(int(size)) for size in match.groups()[2:]):
        raise UsageError(f"--crop takes X,Y,W,H in pixels, such as 100,50,640,480, not {text!r}")
    left, top, width, height = map(int, match.groups())
    return left, top, width, height


def _cropped(
    picture: Image.Image, box: tuple[int, int, int, int] | None, path: Path
) -> Image.Image:
    if box is None:
        return picture
    left, top, width, height = box
    if left + width > picture.width or top + height > picture.height:
        raise UsageError(
            f"--crop {','.join(map(str, box))} reaches beyond the {picture.width}x{picture.height} "
            f"pixels of {path}; take a part inside"
        )
    return picture.crop((left, top, left + width, top + height))


def _split(against: Sequence[str]) -> list[str]:
    """`bicubic,rlfn.onnx` as two; the name of an existing file is one, commas or not."""
    names = [
        name for text in against for name in ([text] if exists(Path(text)) else text.split(","))
    ]
    if not all(names):
        raise UsageError("--against takes names separated by single commas")
    return names


def _report(page: Path, data: bytes, scale: int, pictures: Sequence[Picture]) -> dict[str, Any]:
    """The content of `--json`; the infinite PSNR of equal pictures becomes null."""
    figures = [
        {"method": p.name, "psnr_y": None if p.psnr == math.inf else p.psnr, "ssim_y": p.ssim}
        for p in pictures
        if p.psnr is not None
    ]
    return {"html": str(page), "bytes": len(data), "scale": scale, "figures": figures}


def _print_figures(pictures: Sequence[Picture]) -> None:
    """Names as `Text`, which rich takes literally."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("method", no_wrap=True)
    for heading in ("PSNR dB", "SSIM"):
        table.add_column(heading, justify="right", no_wrap=True)
    for picture in pictures:
        if picture.psnr is not None:
            table.add_row(Text(picture.name), f"{picture.psnr:.3f}", f"{picture.ssim:.4f}")
    stdout_console().print(table)
