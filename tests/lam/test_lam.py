"""`dvmsr lam`: its picture, its figures, and what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dvmsr import checkpoint
from dvmsr.cli import main
from dvmsr.config import DVMSRConfig
from dvmsr.lam import attribution
from dvmsr.lam.explanation import Explanation
from dvmsr.lam.picture import FRAME, NOTHING, PANEL, brightness, draw
from dvmsr.lam.window import Box
from dvmsr.model import DVMSR
from dvmsr.utils.colormap import inferno

Run = Callable[..., tuple[int, str, str]]

SOURCE = """
import torch
from torch import nn

class Sharpen(nn.Module):
    def __init__(self, scale):
        super().__init__()
        print("a word from the network")
        self.scale = scale
    def forward(self, image):
        large = nn.functional.interpolate(image, scale_factor=self.scale, mode="bilinear")
        return 2 * large - nn.functional.avg_pool2d(large, 3, 1, 1)

def two(): return Sharpen(2)
def three(): return Sharpen(3)
def crop(): return nn.AvgPool2d(3, 1)
def number(): return 3
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Run:
    """Runs `dvmsr lam` in a folder with a picture and two networks of scale 2."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    Image.new("RGB", (24, 20), "red").save(tmp_path / "flat.png")
    (tmp_path / "lam_networks.py").write_text(SOURCE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DVMSR(DVMSRConfig(channels=6, depths=(1,), state=2, scale=2))
    checkpoint.save(model, tmp_path / "small.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "lam_networks", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dvmsr", "lam", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        return int(exit.value.code or 0), *capsys.readouterr()

    return run


def test_figures_and_picture_of_two_networks(command: Run) -> None:
    arguments = ("noise.png", "--window", "20,8,6", "--patch", 12, "--steps", 3)
    models = ("--model", "small.safetensors", "--model", "lam_networks:two")
    code, out, err = command(*arguments, *models, "--json")
    assert code == 0
    assert err == "a word from the network\npicture in noise_lam.png\n"
    report = json.loads(out)
    assert report["window"] == {"x": 20, "y": 8, "width": 6, "height": 6}
    assert report["patch"] == {"x": 5, "y": 0, "width": 12, "height": 12}
    assert (report["scale"], report["steps"], report["sigma"]) == (2, 3, 1.2)
    assert [model["name"] for model in report["models"]] == [
        "small.safetensors",
        "lam_networks:two",
    ]
    for model in report["models"]:
        assert model["diffusion_index"] == pytest.approx(100 * (1 - model["gini"]))
        assert 0 < model["gini"] < 1

    with Image.open("noise_lam.png") as picture:
        assert picture.mode == "RGB" and picture.height > 2 * 396 and picture.width > 4 * 396
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".")) == []

    code, out, err = command(*arguments, *models, "--overwrite")
    assert code == 0
    for model in report["models"]:
        assert f"diffusion index {model['diffusion_index']:.2f}\n" in out
    assert "from 12x12 pixels at 5,0 of the image" in out


def test_figures_are_those_of_the_method(command: Run) -> None:
    """Computed here without the command, for a patch that is the whole image."""
    code, out, _ = command(
        "noise.png", "--window", "20,8,6", "--model", "small.safetensors", "--steps", 4, "--json"
    )
    assert code == 0
    (found,) = json.loads(out)["models"]
    with Image.open("noise.png") as picture:
        pixels = np.asarray(picture)
    image = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)
    model = checkpoint.load("small.safetensors")

    def detail(point: torch.Tensor) -> torch.Tensor:
        return attribution.edge_strength(model(point[None]), Box(20, 8, 6, 6))

    def gradient(point: torch.Tensor) -> torch.Tensor:
        point = point.clone().requires_grad_()
        return torch.autograd.grad(detail(point), point)[0]

    signed = attribution.integrate(gradient, image, steps=4)
    index = attribution.diffusion_index(attribution.attribution_map(signed))
    assert found["diffusion_index"] == pytest.approx(index, rel=1e-5)
    assert found["attributed"] == pytest.approx(float(signed.sum()), rel=1e-4)
    blurred = float(detail(attribution.baseline(image)).detach())
    assert found["detail"] == pytest.approx(float(detail(image).detach()), rel=1e-5)
    assert found["detail_of_blurred"] == pytest.approx(blurred, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["noise.png", "--window", "1,2,3,4"], 2, "--window takes X,Y,SIZE"),
        (["noise.png", "--window", "40,2,16"], 2, "the result, which has 48x40 pixels"),
        (["noise.png", "--window", "2,2,16", "--patch", "4"], 2, "do not fit into --patch 4"),
        (["noise.png"], 2, "missing option '--window'; see "),
        (["noise.png", "--window", "2,2", "--sigma", "nan"], 2, "--sigma"),
        (["none.png", "--window", "2,2"], 2, "none.png does not exist"),
        (["lam_networks.py", "--window", "2,2"], 1, "is not a PNG, JPEG"),
        (["noise.png", "--window", "2,2", "-o", "map.txt"], 2, "map.txt must end in one of"),
        (["noise.png", "--window", "2,2", "-o", "no/map.png"], 2, "no is not a folder"),
        (["noise.png", "--window", "2,2", "-o", "flat.png"], 2, "flat.png exists"),
        (
            ["noise.png", "--window", "2,2", "-o", "./noise.png", "--overwrite"],
            2,
            "noise.png is the image itself",
        ),
        (["noise.png", "--window", "2,2", "--model", "pupil"], 2, "no model named pupil"),
        (["noise.png", "--window", "2,2", "--model", "no_such:m"], 2, "no module no_such"),
        (["noise.png", "--window", "2,2", "--model", "lam_networks:number"], 5, "not a torch.nn"),
        (["noise.png", "--window", "2,2", "--model", "lam_networks:crop"], 5, "1x3x18x22"),
        (["flat.png", "--window", "2,2", "--model", "lam_networks:two"], 1, "one with detail"),
        (["noise.png", "--window", "2,2", "--model", "a.pth", "--model", "a.pth"], 2, "twice"),
        (
            [
                "noise.png",
                "--window",
                "2,2",
                "--model=lam_networks:two",
                "--model=lam_networks:three",
            ],
            2,
            "lam_networks:two has 2, lam_networks:three has 3",
        ),
    ],
)
def test_failures_are_one_line_and_leave_nothing(
    command: Run, arguments: list[str], code: int, message: str
) -> None:
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    if not any("--model" in argument for argument in arguments):
        arguments = [*arguments, "--model", "small.safetensors"]
    found, out, err = command(*arguments, "--steps", 1)
    lines = [line for line in err.splitlines() if line != "a word from the network"]
    assert (found, out, len(lines)) == (code, "", 1)
    assert lines[0].startswith("error: ") and message in lines[0]
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def explanation(found: np.ndarray, scale: int = 2) -> Explanation:
    height, width = found.shape
    sr = np.zeros((scale * height, scale * width, 3), np.uint8)
    return Explanation("m", 1.0, 0.99, 1.0, 0.5, 0.5, found, sr)


def test_brightness_is_logarithmic_and_tells_what_is_zero() -> None:
    found, nothing = brightness(np.array([[2.0, 0.2, 0.002, 2e-9, 0.0]]))
    np.testing.assert_allclose(found, [[1, 2 / 3, 0, 0, 0]], atol=1e-12)
    np.testing.assert_array_equal(nothing, [[False] * 4 + [True]])


def test_every_pixel_has_its_colour() -> None:
    found = np.zeros((4, 5))
    found[0, 0], found[1, 3] = 1.0, 0.01
    canvas = draw(np.zeros((4, 5, 3), np.uint8), Box(4, 6, 2, 2), [explanation(found)])
    colours = {tuple(colour) for row in canvas for colour in row}
    assert {tuple(inferno(np.float64(1 / 3))), NOTHING, FRAME} <= colours
    assert canvas.shape[1] > 4 * 5 * (PANEL // 5)


@pytest.mark.parametrize("side", [PANEL + 1, 3 * PANEL])
def test_a_single_pixel_of_a_large_image_shows(side: int) -> None:
    """It is a light yellow point among what has no influence."""
    found = np.zeros((side, 40))
    found[side - 2, 7] = 1.0
    picture = draw(np.zeros((side, 40, 3), np.uint8), Box(0, 0, 2, 2), [explanation(found)])
    assert picture.shape[0] < 2 * PANEL and picture.shape[1] == 800
    panels = picture[: -3 * 26]  # without the legend
    peak = (panels == inferno(np.float64(1))).all(-1)
    assert peak.any() and (panels == NOTHING).all(-1).any()
