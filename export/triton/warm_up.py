"""What the server enlarges once before it is ready."""

from __future__ import annotations

import io
import struct

from PIL import Image

PICTURE = "picture"
"""Name of the file with a picture, below `warmup`."""


def picture(height: int, width: int) -> bytes:
    """A gray PNG as Triton keeps a tensor of bytes in a file: its length before it."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "gray").save(buffer, "PNG")
    data = buffer.getvalue()
    return struct.pack("<I", len(data)) + data
