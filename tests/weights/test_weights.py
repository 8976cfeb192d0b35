"""The bundled files hold one network, the one that the model card describes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared import REPOSITORY

import dvmsr
from dvmsr import checkpoint
from dvmsr.runtime import Upscaler
from dvmsr.weights import registry

WEIGHTS = Path(dvmsr.__file__).parent / "weights"
PHOTOGRAPH = REPOSITORY / "examples" / "chelsea.png"


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    with Image.open(PHOTOGRAPH) as image:
        return np.asarray(image.crop((120, 80, 184, 128)))


@pytest.fixture(scope="module")
def expected(crop: np.ndarray) -> np.ndarray:
    """What PyTorch makes of the checkpoint, in FP32, with values in [0, 1]."""
    return np.asarray(Upscaler.from_file(WEIGHTS / "dvmsr_x4.safetensors")(crop / np.float32(255)))


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("name", registry.BUNDLED)
def test_files_agree(name: str, streaming: bool, crop: np.ndarray, expected: np.ndarray) -> None:
    """2e-4 in FP32, 60 dB in FP16."""
    result = Upscaler.from_file(registry.find_model(name, streaming))(crop / np.float32(255))
    difference = np.abs(np.asarray(result) - expected)
    if "fp16" in name:
        assert -10 * np.log10(np.mean(difference**2)) > 60
    else:
        assert difference.max() < 2e-4


def test_the_card_tells_the_parameters_and_the_files() -> None:
    card = (WEIGHTS / "README.md").read_text()
    network = checkpoint.load(WEIGHTS / "dvmsr_x4.safetensors")
    assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in card
    for path in WEIGHTS.glob("dvmsr_*"):
        assert f"`{path.name}`" in card
