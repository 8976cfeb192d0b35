"""TensorRT for RTX, whose parser and builder work without a GPU; most machines lack it."""

from __future__ import annotations

import pytest

from dvmsr.export.trt.target import RTX_VERSION
from dvmsr.runtime.backends.trt.version import installed_version


def skip_without_rtx() -> None:
    """Skip the running test where the tested version is not installed."""
    version = installed_version("rtx")
    if version is None or not version.startswith(f"{RTX_VERSION}."):
        pytest.skip(f'needs TensorRT for RTX {RTX_VERSION}: pip install "dvmsr[rtx]"')
