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


@pytest.fixture(scope="module", params=registry.STUDENTS)
def student(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expected(student: str, crop: np.ndarray) -> np.ndarray:
    """What PyTorch makes of the checkpoint, in FP32, with values in [0, 1]."""
    upscaler = Upscaler.from_file(WEIGHTS / registry.BUNDLED_CHECKPOINTS[student])
    assert upscaler.scale == registry.STUDENTS[student]
    return np.asarray(upscaler(crop / np.float32(255)))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is made of the bundled files goes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "dvmsr" / "weights"


@pytest.mark.parametrize("kind", ["whole", "streaming", "fp16"])
def test_files_agree(
    student: str, kind: str, crop: np.ndarray, expected: np.ndarray, cache: Path
) -> None:
    """2e-4 in FP32, 60 dB in FP16."""
    name = f"{student}-fp16" if kind == "fp16" else student
    path = registry.find_model(name, streaming=kind == "streaming")
    difference = np.abs(np.asarray(Upscaler.from_file(path)(crop / np.float32(255))) - expected)
    if kind == "fp16":
        assert -10 * np.log10(np.mean(difference**2)) > 60
    else:
        assert difference.max() < 2e-4


KINDS = {"": ("fp32", False), ".fp16": ("fp16", False), ".streaming": ("fp32", True)}
FILES = [f"dvmsr_x{scale}{kind}" for scale in (2, 3, 4) for kind in KINDS if kind or scale == 4]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_files_are_what_the_export_makes(kind: str, scale: int, cache: Path) -> None:
    """But for the operators' bodies, which stay as they are until the operators change. Those that
    are made of others where they are needed, too."""
    precision, streaming = KINDS[kind]
    (name,) = (name for name, its in registry.STUDENTS.items() if its == scale)
    path = registry.find_model(f"{name}-fp16" if kind == ".fp16" else name, streaming)
    assert path.name == f"dvmsr_x{scale}{kind}.onnx" or (kind == "" and path.parent == cache)
    made, _ = make_model(WEIGHTS / f"dvmsr_x{scale}.safetensors", precision, streaming=streaming)
    bundled = onnx.load(path)
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
    assert [path.name for path in files] == sorted(f"{name}.onnx" for name in FILES)
    recipe = (REPOSITORY / "Makefile").read_text().partition("\nbundled:")[2].partition("\n\n")[0]
    assert "for scale in 2 3 4; do for kind in --fp16 --streaming; do" in recipe
    assert "dvmsr_x4.safetensors\n" in recipe


def test_what_is_made_of_others_is_kept_and_mended(cache: Path) -> None:
    path = registry.find_model("student-x2")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert registry.find_model("student-x2") == path and path.read_bytes() == content
    assert list(cache.iterdir()) == [path]


def test_the_card_tells_the_parameters_and_the_files() -> None:
    card = (WEIGHTS / "README.md").read_text()
    for scale in (2, 3, 4):
        network = checkpoint.load(WEIGHTS / f"dvmsr_x{scale}.safetensors")
        assert f"{sum(p.numel() for p in network.parameters()):,}" in card
    for path in WEIGHTS.glob("dvmsr_*"):
        assert f"`{path.name}`" in card
