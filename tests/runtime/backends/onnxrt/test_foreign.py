"""ONNX files of other programs: their range of values and scale found out, and what is refused."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_model import SCALE, repeated, save_foreign
from PIL import Image
from shared import REPOSITORY, official_weights, shared_dir
from small_model import random_pixels

from dvmsr.data.pairs import find_dataset
from dvmsr.errors import DvmsrError, IncompatibleModelError, UsageError
from dvmsr.eval.evaluate import load_methods
from dvmsr.eval.metrics import psnr_y
from dvmsr.kernels import cpu
from dvmsr.runtime import Upscaler, memory

native = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)


@pytest.mark.parametrize(("operator", "peak"), [("Clip", 1), ("Round", 255)])
def test_finds_range_and_scale(tmp_path: Path, operator: str, peak: int) -> None:
    """The one saturates with values up to 255, the other loses everything with values up to 1."""
    path = save_foreign(tmp_path / "m.onnx", operator)
    with pytest.warns(UserWarning, match=f"values from 0 to {peak} .*onnx@{peak} would say so"):
        upscaler = Upscaler.from_file(path)
    assert upscaler.scale == SCALE
    image = random_pixels(9, 7)
    np.testing.assert_array_equal(upscaler(image), repeated(image))


def test_a_named_range_is_taken(tmp_path: Path) -> None:
    image = random_pixels(9, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrong = Upscaler.from_file(f"{save_foreign(tmp_path / 'm.onnx', 'Clip')}@255")(image)
    assert wrong.max() == 1


def test_a_fixed_size_is_kept(tmp_path: Path) -> None:
    path = save_foreign(tmp_path / "m.onnx", "Identity", shape=(1, 3, 8, "w"))
    upscaler = Upscaler.from_file(f"{path}@1")
    image = random_pixels(8, 5)
    np.testing.assert_array_equal(upscaler(image), repeated(image))
    with pytest.raises(IncompatibleModelError, match="pictures of anyx8 pixels only, not 5x9"):
        upscaler(random_pixels(9, 5))


@pytest.mark.parametrize(
    ("operator", "options", "complaint"),
    [
        (
            "Transpose",
            {"perm": [0, 1, 3, 2]},
            "no larger copy .* not enlarged by a whole",
        ),
        ("Identity", {"scale": 1.5}, "not enlarged by a whole number"),
        ("Flatten", {}, "not enlarged by a whole number"),
        ("Neg", {}, "makes no larger copy"),
        ("Log", {}, "makes no larger copy"),
        (
            "Identity",
            {"shape": (1, 1, "h", "w")},
            "not take one RGB picture.*run it with",
        ),
        ("Identity", {"shape": (2, 3, "h", "w")}, "does not take one RGB picture"),
        ("Identity", {"shape": (1, 6, "h", "w")}, r"takes picture \[1, 6, 'h', 'w'\] of tensor\(f"),
        ("Nonsense", {}, "cannot be loaded by ONNX Runtime"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_refuses_what_does_not_enlarge(
    tmp_path: Path, operator: str, options: dict, complaint: str
) -> None:
    path = save_foreign(tmp_path / "m.onnx", operator, **options)
    with pytest.raises(IncompatibleModelError, match=complaint):
        Upscaler.from_file(path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    upscaler = Upscaler.from_file(f"{save_foreign(tmp_path / 'm.onnx', 'Log')}@1")
    with pytest.raises(DvmsrError, match="not finite"):
        upscaler(np.zeros((4, 4, 3), np.uint8))


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
        upscaler = Upscaler.from_file(path)
    pair = find_dataset(shared_dir() / "eval" / "Set5", 4).pairs[1].load(4)
    with torch.inference_mode():
        truth = network(torch.from_numpy(pair.lr).permute(2, 0, 1)[None].float())[0]
    expected = truth.permute(1, 2, 0).clamp(0, 255).round().byte().numpy()
    result = upscaler(pair.lr)
    assert abs(result.astype(int) - expected).max() <= 1
    assert psnr_y(result, pair.hr, 4) == pytest.approx(psnr_y(expected, pair.hr, 4), abs=0.005)


@native
@pytest.mark.parametrize("backend", ["auto", "portable"])
def test_a_network_with_a_scan(exported: Callable[[str], Path], backend: str) -> None:
    """It computes what PyTorch does, of pictures of any kind; whole, as it has no strips."""
    import own_network
    import torch

    file = exported("enlarge")
    with pytest.warns(UserWarning, match="values from 0 to 1 give the better picture"):
        upscaler = Upscaler.from_file(file, backend)
    assert upscaler.backend == ("native" if backend == "auto" else backend)
    assert (upscaler.scale, upscaler.precision, upscaler.config) == (2, "fp32", None)
    image = random_pixels(9, 7) / np.float32(255)
    with torch.inference_mode():
        truth = own_network.enlarge()(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
    expected = truth.permute(1, 2, 0).clamp(0, 1).numpy()
    assert abs(upscaler(image) - expected).max() < 1e-5
    gray = Image.fromarray(random_pixels(5, 4, 1))
    assert (upscaler(gray).size, upscaler(gray).mode) == ((8, 10), "L")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the range is not found out again
        again = pickle.loads(pickle.dumps(upscaler))
    np.testing.assert_array_equal(again(image), upscaler(image))
    with pytest.raises(UsageError, match="computes whole images only; leave out the height of st"):
        Upscaler.from_file(f"{file}@1", backend, strip=8)


@native
def test_sizes_that_a_network_takes_alone(exported: Callable[[str], Path]) -> None:
    """What it enlarges by, and its range, are found with a size that it takes."""
    with pytest.warns(UserWarning, match="values from 0 to 1 "):
        upscaler = Upscaler.from_file(exported("in_windows"))
    assert upscaler(random_pixels(8, 12)).shape == (16, 24, 3)
    with pytest.raises(DvmsrError, match=r"failed on .*sizes that the network takes, such as mult"):
        upscaler(random_pixels(9, 12))


@native
def test_a_network_that_classifies(exported: Callable[[str], Path]) -> None:
    with pytest.raises(IncompatibleModelError, match="makes no larger copy of a picture: of shape"):
        Upscaler.from_file(exported("classify"))


def test_half_precision(tmp_path: Path) -> None:
    """Inputs and outputs of FP16."""
    path = save_foreign(tmp_path / "m.onnx", "Clip")
    model = onnx.load(path)
    half = onnx.TensorProto.FLOAT16
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = half
    for weight in model.graph.initializer[1:]:
        weight.CopyFrom(onnx.helper.make_tensor(weight.name, half, [], weight.float_data))
    onnx.save(model, path)
    upscaler = Upscaler.from_file(f"{path}@1")
    assert upscaler.precision == "fp16"
    image = random_pixels(9, 7)
    np.testing.assert_array_equal(upscaler(image), repeated(image))


def test_a_picture_whose_result_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is known of the memory that it takes."""
    upscaler = Upscaler.from_file(f"{save_foreign(tmp_path / 'm.onnx', 'Clip')}@1")
    monkeypatch.setattr(memory, "available", lambda: 100_000)
    upscaler(random_pixels(20, 20))
    assert not upscaler.fits(20, 20)
    with pytest.raises(DvmsrError, match="the image has 40x40 pixels, whose result alone needs"):
        upscaler(random_pixels(40, 40))
