"""`dvmsr serve` as a process of its own, and pictures to send to it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image
from processes import LIMIT, next_line


@contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address without the last slash, and the process, which is ended if it is still there."""
    program = "from dvmsr.entry import dvmsr; dvmsr()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--port", "0", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            url = next_line(process, process.stdout).strip()
            assert url, process.stderr and process.stderr.read()
            yield url.removesuffix("/"), process
        finally:
            process.terminate()
            process.wait(LIMIT)


def file_of(height: int, width: int, format: str = "PNG", mode: str = "RGB") -> bytes:
    """A picture's file, of noise."""
    bands = len(mode)
    noise = np.random.default_rng(height * width).integers(0, 256, (height, width, bands), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise.squeeze()).save(buffer, format)
    return buffer.getvalue()
