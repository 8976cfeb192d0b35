"""Where on earth a picture is, as a GeoTIFF says, when it has more pixels (OGC GeoTIFF 1.1).

Places in the picture are counted from the corner of the first pixel or, where the file says so,
from its middle, which then lies (s - 1) / 2 new pixels further in.
"""

from collections.abc import Sequence

KEYS = 34735
"""Keys, in fours: number, where the value is, how many, the value or its place (section 7.1)."""
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _INTERGRAPH = 33550, 33922, 34264, 33920
"""The last is what others once wrote for the one before, a matrix, too."""
_RATIONAL_POLYNOMIALS = 50844
"""RPCs (GeoTIFF RPC 1.0): they count from the middle; lines and samples have offset and scale."""
_OFFSETS, _SCALES = (2, 3), (7, 8)
_RASTER_TYPE, _POINT = 1025, 2
TAGS = {_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _INTERGRAPH, _RATIONAL_POLYNOMIALS}
"""All of floating-point numbers."""


def is_point(keys: Sequence[int]) -> bool:
    """Whether places are counted from the middle of a pixel, by the values of `KEYS`."""
    fours = zip(keys[0::4], keys[1::4], keys[2::4], keys[3::4], strict=False)
    return any(key == _RASTER_TYPE and value == _POINT for key, _, _, value in fours)


def enlarged(tag: int, numbers: Sequence[float], scale: int, point: bool) -> list[float]:
    """The values of one of `TAGS` for `scale` times as many pixels a side.

    Args:
        point: as of `is_point`.
    """
    values = list(numbers)
    shift = (scale - 1) / 2 if point else 0
    if tag == _PIXEL_SCALE:
        values[:2] = [value / scale for value in values[:2]]
    elif tag == _TIE_POINTS:
        for start in range(0, len(values) - 5, 6):
            for k in (start, start + 1):
                values[k] = scale * values[k] + shift
    elif tag in (_TRANSFORMATION, _INTERGRAPH):
        for start in range(0, len(values) - 3, 4):
            across, down = (value / scale for value in values[start : start + 2])
            values[start : start + 2] = [across, down]
            values[start + 3] -= shift * (across + down)
    elif tag == _RATIONAL_POLYNOMIALS and len(values) > max(_SCALES):
        for k in _OFFSETS:
            values[k] = scale * values[k] + (scale - 1) / 2
        for k in _SCALES:
            values[k] *= scale
    return values
