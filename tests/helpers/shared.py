"""The folder of reference weights and evaluation images that may lie beside the checkout.

It is not part of the repository. Tests that want it skip, saying so, where it is missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_FOLDER = REPOSITORY.parent / "shared"

requires_shared = pytest.mark.skipif(
    not (_FOLDER / "weights").is_dir(),
    reason="needs the reference weights and images in ../shared, not part of the repository",
)


def shared_dir() -> Path:
    """The folder; skips the running test where there is none."""
    if not (_FOLDER / "weights").is_dir():
        pytest.skip("no ../shared folder beside this checkout")
    return _FOLDER


def official_weights(name: str) -> Path:
    """An official checkpoint: `dvmsr_df2k`, `dvmsr_ntire` or `rlfn_ntire`."""
    model, data = name.split("_")
    return shared_dir() / "weights" / f"{model}_official_{data}.pth"
