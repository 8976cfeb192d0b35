"""Which TensorRT is installed, without importing it."""

from importlib import metadata

PACKAGES = {
    "gpu": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "rtx": ("tensorrt-rtx-cu13-bindings",),
}
"""Packages whose versions are TensorRT's, and TensorRT for RTX's."""


def installed_version(target: str = "gpu") -> str | None:
    """Full version of the Python package of TensorRT (`gpu`) or TensorRT for RTX (`rtx`)."""
    for package in PACKAGES[target]:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def installed_major() -> int | None:
    """The major version of TensorRT."""
    version = installed_version()
    return int(version.partition(".")[0]) if version else None
