"""The colours under transparent pixels, which nobody sees but a network would."""

from __future__ import annotations

from PIL import Image


def extend_colours(image: Image.Image) -> Image.Image:
    """The picture without alpha; wherever that is zero, the colour comes from visible pixels near.

    What a file holds there is arbitrary, and would bleed into the visible edge when the colours
    are enlarged without their alpha. The colours are filled in from coarse to fine over a pyramid
    of halved pictures (push-pull, Gortler et al. 1996), so the cost is linear in the pixels.

    Args:
        image: of mode RGB, L, RGBA or LA.

    Returns:
        Mode RGB or L; visible pixels are unchanged, and black if there are none.
    """
    if "A" not in image.getbands():
        return image
    return _filled(_visible_or_not(image))


def _visible_or_not(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(image.getchannel("A").point(lambda alpha: 255 * (alpha > 0)))
    return image


def _filled(image: Image.Image) -> Image.Image:
    """An image whose alpha is 0 or 255, without the holes."""
    colours, alpha = image.convert(image.mode.removesuffix("A")), image.getchannel("A")
    least, most = alpha.getextrema()
    if least == 255:
        return colours
    if most == 0:
        return Image.new(colours.mode, image.size)
    width, height = image.size
    coarse = _filled(_visible_or_not(image.reduce(2)))  # a mean weighted by alpha
    inside = (0, 0, width / 2, height / 2)
    filled = coarse.resize(image.size, Image.Resampling.BILINEAR, inside)
    filled.paste(colours, mask=alpha)
    return filled
