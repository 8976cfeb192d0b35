"""ONNX files of other programs: their range of values and scale found out, and what is refused."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from foreign_model import SCALE, repeated, save_foreign
from shared import REPOSITORY, official_weights, shared_dir
from small_model import random_pixels

from dvmsr.data.pairs import find_dataset
from dvmsr.errors import DvmsrError, IncompatibleModelError, UsageError
from dvmsr.eval.evaluate import load_methods
from dvmsr.eval.metrics import psnr_y
from dvmsr.runtime.backends.onnxrt.foreign import ForeignUpscaler, split


@pytest.mark.parametrize(("operator", "peak"), [("Clip", 1), ("Round", 255)])
def test_finds_range_and_scale(tmp_path: Path, operator: str, peak: int) -> None:
    """The one saturates with values up to 255, the other loses everything with values up to 1."""
    path = save_foreign(tmp_path / "m.onnx", operator)
    with pytest.warns(UserWarning, match=f"values from 0 to {peak} .*onnx@{peak} would say so"):
        upscaler = ForeignUpscaler(path)
    assert upscaler.scale == SCALE
    image = random_pixels(9, 7)
    np.testing.assert_array_equal(upscaler(image), repeated(image))


def test_a_named_range_is_taken(tmp_path: Path) -> None:
    image = random_pixels(9, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrong = ForeignUpscaler(save_foreign(tmp_path / "m.onnx", "Clip"), 255)(image)
    assert wrong.max() == 1


def test_a_fixed_size_is_kept(tmp_path: Path) -> None:
    path = save_foreign(tmp_path / "m.onnx", "Identity", shape=(1, 3, 8, "w"))
    upscaler = ForeignUpscaler(path, 1)
    image = random_pixels(8, 5)
    np.testing.assert_array_equal(upscaler(image), repeated(image))
    with pytest.raises(IncompatibleModelError, match="pictures of anyx8 pixels only, not 5x9"):
        upscaler(random_pixels(9, 5))


@pytest.mark.parametrize(
    ("operator", "options", "complaint"),
    [
        ("Transpose", {"perm": [0, 1, 3, 2]}, "not enlarged by a whole number"),
        ("Identity", {"scale": 1.5}, "not enlarged by a whole number"),
        ("Flatten", {}, "not enlarged by a whole number"),
        ("Neg", {}, "makes no larger copy"),
        ("Log", {}, "makes no larger copy"),
        ("Identity", {"shape": (1, 1, "h", "w")}, "does not take one RGB picture"),
        ("Identity", {"shape": (2, 3, "h", "w")}, "does not take one RGB picture"),
        ("Nonsense", {}, "cannot be loaded by ONNX Runtime"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_refuses_what_does_not_enlarge(
    tmp_path: Path, operator: str, options: dict, complaint: str
) -> None:
    path = save_foreign(tmp_path / "m.onnx", operator, **options)
    with pytest.raises(IncompatibleModelError, match=complaint):
        ForeignUpscaler(path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    upscaler = ForeignUpscaler(save_foreign(tmp_path / "m.onnx", "Log"), 1)
    with pytest.raises(DvmsrError, match="not finite"):
        upscaler(np.zeros((4, 4, 3), np.uint8))


def test_names(tmp_path: Path) -> None:
    assert split("a/m.onnx@255") == ("a/m.onnx", 255)
    assert split("m.ONNX@1") == ("m.ONNX", 1)
    assert split("m.onnx") == ("m.onnx", None)
    assert split("me@home/m.onnx") == ("me@home/m.onnx", None)
    (tmp_path / "m.onnx@1").touch()
    assert split(str(tmp_path / "m.onnx@1")) == (str(tmp_path / "m.onnx@1"), None)
    with pytest.raises(UsageError, match="write @1 for 0 to 1 or @255"):
        split("m.onnx@2")


def test_methods_have_one_scale(tmp_path: Path) -> None:
    path = save_foreign(tmp_path / "m.onnx", "Clip")
    ((method, bicubic), scale) = load_methods([f"{path}@1", "bicubic"])
    assert (method.name, bicubic.name, scale) == ("m.onnx@1", "bicubic", SCALE)
    with pytest.raises(IncompatibleModelError, match=r"student has 4.*take one scale"):
        load_methods([f"{path}@1", "student"])
    with pytest.raises(UsageError, match="does not exist"):
        load_methods(["missing.onnx@1"])


def test_rlfn_computes_what_pytorch_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of PyTorch; colours the other way round or the wrong range would be far from it."""
    import torch

    weights = official_weights("rlfn_ntire")
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import rlfn

    monkeypatch.delitem(sys.modules, "rlfn")
    network, path = rlfn.load(weights), tmp_path / "rlfn.onnx"
    axes = {"picture": {2: "h", 3: "w"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"input_names": ["picture"], "dynamic_axes": axes, "dynamo": False}
        torch.onnx.export(network, (torch.zeros(1, 3, 64, 64),), str(path), **options)
    with pytest.warns(UserWarning, match="values from 0 to 255"):
        upscaler = ForeignUpscaler(path)
    pair = find_dataset(shared_dir() / "eval" / "Set5", 4).pairs[1].load(4)
    with torch.inference_mode():
        truth = network(torch.from_numpy(pair.lr).permute(2, 0, 1)[None].float())[0]
    expected = truth.permute(1, 2, 0).clamp(0, 255).round().byte().numpy()
    result = upscaler(pair.lr)
    assert abs(result.astype(int) - expected).max() <= 1
    assert psnr_y(result, pair.hr, 4) == pytest.approx(psnr_y(expected, pair.hr, 4), abs=0.005)
