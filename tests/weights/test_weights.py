"""The bundled files hold one network, the one that the model card describes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from shared import REPOSITORY

import dvmsr
from dvmsr import checkpoint
from dvmsr.export.onnx.export import make_model
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


KINDS = {"": ("fp32", False), ".fp16": ("fp16", False), ".streaming": ("fp32", True)}


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_what_the_export_makes(kind: str) -> None:
    """But for the operators' bodies, which stay as they are until the operators change."""
    precision, streaming = KINDS[kind]
    source = WEIGHTS / "dvmsr_x4.safetensors"
    made, _ = make_model(source, precision, streaming=streaming)
    bundled = onnx.load(WEIGHTS / f"dvmsr_x4{kind}.onnx")
    assert bundled.graph == made.graph
    told, expected = (
        {p.key: p.value for p in model.metadata_props if p.key != "dvmsr.git_revision"}
        for model in (bundled, made)
    )
    assert told == expected


def test_files_are_of_one_state_and_one_command_makes_all() -> None:
    files = sorted(WEIGHTS.glob("*.onnx"))
    props = [onnx.load(path).metadata_props for path in files]
    (revision,) = {p.value for each in props for p in each if p.key == "dvmsr.git_revision"}
    assert re.fullmatch("[0-9a-f]{40}", revision)
    assert [path.name for path in files] == sorted(f"dvmsr_x4{kind}.onnx" for kind in KINDS)
    recipe = (REPOSITORY / "Makefile").read_text().partition("\nbundled:")[2].partition("\n\n")[0]
    options = [word.replace(".", "--") for word in KINDS if word]
    assert f'for kind in "" {" ".join(options)};' in recipe


def test_the_card_tells_the_parameters_and_the_files() -> None:
    card = (WEIGHTS / "README.md").read_text()
    network = checkpoint.load(WEIGHTS / "dvmsr_x4.safetensors")
    assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in card
    for path in WEIGHTS.glob("dvmsr_*"):
        assert f"`{path.name}`" in card
