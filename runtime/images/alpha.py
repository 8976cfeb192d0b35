"""The colours under transparent pixels, which nobody sees but a network would."""

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
    return filled(visible_or_not(image))


def visible_or_not(image: Image.Image) -> Image.Image:
    """The picture with alpha 255 wherever it is not 0."""
    image = image.copy()
    image.putalpha(image.getchannel("A").point(lambda alpha: 255 * (alpha > 0)))
    return image


def filled(image: Image.Image) -> Image.Image:
    """An image whose alpha is 0 or 255, without the holes."""
    colours, alpha = image.convert(image.mode.removesuffix("A")), image.getchannel("A")
    least, most = alpha.getextrema()
    if least == 255:
        return colours
    if most == 0:
        return Image.new(colours.mode, image.size)
    coarse = filled(visible_or_not(image.reduce(2)))  # a mean weighted by alpha
    result = doubled(coarse, image.size, 0)
    result.paste(colours, mask=alpha)
    return result


def doubled(image: Image.Image, size: tuple[int, int], top: float) -> Image.Image:
    """The picture from row `top` on, twice as large by bilinear interpolation, cut to that size.

    First along the rows, then along the columns: left to itself, Pillow decides by the size which
    comes first, and the two differ in rounding.
    """
    width, height = size
    bilinear = Image.Resampling.BILINEAR
    wide = image.resize((width, image.height), bilinear, (0, 0, width / 2, image.height))
    return wide.resize(size, bilinear, (0, top, width, top + height / 2))
