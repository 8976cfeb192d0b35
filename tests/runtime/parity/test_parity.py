"""`dvmsr parity`: its figures, its verdict, and where it says that two networks drift apart."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image
from shared import official_weights, shared_dir
from small_model import CONFIG, ONNX_BACKENDS, Models, random_pixels

from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig
from dvmsr.data.natural_image import natural_image
from dvmsr.data.pairs import find_dataset
from dvmsr.errors import UsageError
from dvmsr.eval.metrics import psnr_y
from dvmsr.export.onnx.export import export_onnx
from dvmsr.kernels import cpu
from dvmsr.model import DVMSR
from dvmsr.runtime import Upscaler
from dvmsr.runtime.backends.base import Network
from dvmsr.runtime.parity.drift import FP32_DRIFT, common_layers, compare_layers, first_drift
from dvmsr.runtime.parity.parity import compare
from dvmsr.runtime.parity.samples import Sample, find_samples, synthetic_sample
from dvmsr.runtime.spec import load, split

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    """Two originals and their reductions."""
    for k, name in enumerate(("a.png", "b.png")):
        for folder, size in (("HR", 2), ("LRx2", 1)):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            pixels = random_pixels(size * (9 + k), size * 11)
            Image.fromarray(pixels).save(tmp_path / "set" / folder / name)
    return tmp_path / "set"


def fake(function: Callable[[np.ndarray], np.ndarray], scale: int = 2) -> Upscaler:
    class Fake(Network):
        config = DVMSRConfig(channels=8, depths=(1,), state=4, scale=scale)
        precision = "fp32"

        def __call__(self, image: np.ndarray) -> np.ndarray:
            return function(image)

    return Upscaler(Fake(), "native", "fake.onnx")


def nearest(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, axis=2).repeat(2, axis=3)


@pytest.mark.parametrize(
    ("spec", "model", "backend"),
    [
        ("net.onnx", "net.onnx", "auto"),
        ("net.onnx:portable", "net.onnx", "portable"),
        ("student:native", "student", "native"),
        ("C:\\nets\\net.onnx", "C:\\nets\\net.onnx", "auto"),
        ("a:b/net.onnx", "a:b/net.onnx", "auto"),
        ("a:b/net.pth:torch", "a:b/net.pth", "torch"),
        ("nets:vim", "nets:vim", "auto"),
        ("nets:vim:torch", "nets:vim", "torch"),
        ("my.nets:Vim.tiny", "my.nets:Vim.tiny", "auto"),
        ("nets:vim:quick", "nets:vim", "quick"),
        ("net.onnx:quick", "net.onnx", "quick"),
        ("student:quick", "student", "quick"),
        ("nets:torch", "nets", "torch"),
    ],
)
def test_a_model_and_its_backend(spec: str, model: str, backend: str) -> None:
    assert split(spec) == (model, backend)


def test_a_colon_may_be_part_of_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net:portable").touch()
    assert split("net:portable") == ("net:portable", "auto")


def test_figures_of_a_known_difference() -> None:
    """An offset of 0.01, everywhere in one image and in a quarter of the other."""

    def off(image: np.ndarray) -> np.ndarray:
        result = nearest(image)
        rows = result.shape[2] if image.shape[3] == 6 else result.shape[2] // 4
        result[:, :, :rows] += np.float32(0.01)
        return result

    planes = [np.full((1, 3, 4, width), 0.25, np.float32) for width in (8, 6)]
    samples = [lambda p=p: Sample(f"{p.shape[3]}", p, None) for p in planes]
    (quarter, whole), worst = compare(fake(off), fake(nearest), samples)
    assert quarter.max_abs == pytest.approx(0.01, rel=1e-5)
    assert quarter.psnr == pytest.approx(40 + 10 * math.log10(4), abs=1e-3)
    assert whole.psnr == pytest.approx(40.0, abs=1e-3)
    assert (quarter.shape, quarter.delta_psnr) == ((1, 4, 8), None)
    assert worst.sample.name == ("6" if whole.max_abs > quarter.max_abs else "8")
    np.testing.assert_array_equal(worst.b, nearest(worst.sample.planes))


def test_a_nan_is_the_worst() -> None:
    def broken(image: np.ndarray) -> np.ndarray:
        return nearest(image) * (np.float32(np.nan) if image.shape[3] == 6 else np.float32(0.5))

    samples = [
        lambda w=w: Sample(str(w), np.ones((1, 3, 4, w), np.float32), None) for w in (5, 6, 7)
    ]
    found, worst = compare(fake(broken), fake(nearest), samples)
    assert math.isnan(found[1].max_abs) and math.isnan(found[1].psnr)
    assert worst.sample.name == "6"


def test_change_of_psnr_against_the_truth(models: Models, test_set: Path) -> None:
    a, b = load(f"{models.onnx}:portable"), fake(nearest)
    found, _ = compare(a, b, find_samples([test_set], 2))
    for image, files in zip(found, find_dataset(test_set, 2).pairs, strict=True):
        pair = files.load(2)
        enlarged = pair.lr.repeat(2, axis=0).repeat(2, axis=1)
        expected = psnr_y(a(pair.lr), pair.hr, 2) - psnr_y(enlarged, pair.hr, 2)
        assert image.image == files.hr.name
        assert image.delta_psnr == pytest.approx(expected, abs=1e-9)


def test_scales_must_agree() -> None:
    with pytest.raises(UsageError, match="compare equal scales"):
        compare(fake(nearest), fake(nearest, scale=3), [lambda: synthetic_sample((1, 4, 4))])


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_a_checkpoint_and_its_file(
    command: Command, models: Models, kind: str, backend: str
) -> None:
    code, out, err = command("parity", getattr(models, kind), f"{models.onnx}:{backend}")
    assert (code, err) == (0, "")
    assert "synthetic" in out and "1x96x128" in out
    assert out.endswith("within the limits: max abs at most 0.0002\n")


def test_json_names_both_sides_and_every_image(
    command: Command, models: Models, test_set: Path
) -> None:
    picture = test_set / "LRx2" / "a.png"
    code, out, err = command(
        *("parity", f"{models.onnx}:portable", f"{models.onnx_fp16}:portable", "--json"),
        *("--images", test_set, "--images", picture, "--limits", "max-abs=0.1,delta-psnr=0.5"),
    )
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["a"] == {"model": str(models.onnx), "backend": "portable", "precision": "fp32"}
    assert report["b"]["precision"] == "fp16"
    assert report["limits"] == {"max_abs": 0.1, "psnr": None, "delta_psnr": 0.5}
    assert [image["image"] for image in report["images"]] == ["a.png", "b.png", "a.png"]
    deltas = [image["delta_psnr"] for image in report["images"]]
    assert deltas[2] is None
    overall = report["overall"]
    assert overall["delta_psnr"] == pytest.approx(np.mean(deltas[:2]))
    assert overall["max_abs"] == max(image["max_abs"] for image in report["images"])
    assert overall["psnr"] == min(image["psnr"] for image in report["images"])
    assert "layers" not in report


def test_equal_outputs_have_no_finite_psnr(command: Command, models: Models) -> None:
    model = f"{models.onnx_5x7}:portable"
    code, out, _ = command("parity", model, model, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["overall"] == {"max_abs": 0.0, "psnr": None, "delta_psnr": None}
    assert report["images"][0]["shape"] == [1, 5, 7]  # the only one that this file takes


def with_changed_bias(source: Path, target: Path, name: str) -> Path:
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            values = numpy_helper.to_array(tensor).copy()
            values[0] += 0.5  # in one channel: LayerNorm would take it out of all
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            onnx.save(model, target)
            return target
    raise AssertionError(name)


@pytest.mark.parametrize("reference", ["onnx", "safetensors"])
def test_beyond_the_limits_is_exit_code_3_and_names_the_layer(
    command: Command, models: Models, tmp_path: Path, reference: str
) -> None:
    bad = with_changed_bias(models.onnx, tmp_path / "bad.onnx", "rssb0/conv.bias")
    other = models.safetensors if reference == "safetensors" else f"{models.onnx}:portable"
    picture = tmp_path / "where.png"
    code, out, err = command(
        *("parity", f"{bad}:portable", other, "--layers", "--json", "--heat-map", picture)
    )
    assert code == 3
    report = json.loads(out)
    assert (report["passed"], report["first_drift"]) == (False, "rssb0/conv")
    layers = {layer["name"]: layer["relative"] for layer in report["layers"]}
    assert layers["rssb0/vimm0/scan"] < FP32_DRIFT < layers["rssb0/skip"]
    drawn, error = err.splitlines()
    assert drawn.startswith(f"{picture}: synthetic")
    assert error.startswith("error: ") and error.endswith("they drift apart at rssb0/conv")
    with Image.open(picture) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        DVMSRConfig(channels=8, depths=(2, 1), state=4, scale=3, vimm_residual=True),
        DVMSRConfig(channels=8, depths=(1,), state=4, scale=4, upsampler="pixelshuffle"),
        DVMSRConfig(channels=8, depths=(1,), state=4, scale=2, bidirectional=True),
    ],
    ids=["plain", "residual", "pixelshuffle", "bidirectional"],
)
def test_pytorch_and_onnx_agree_in_every_layer(tmp_path: Path, config: DVMSRConfig) -> None:
    """All values that PyTorch shows, under the same names and in the same order."""
    checkpoint.save(DVMSR(config), tmp_path / "net.safetensors")
    export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx", verify=False)
    ours = load(str(tmp_path / "net.safetensors")).network
    theirs = load(f"{tmp_path / 'net.onnx'}:portable").network
    layers = compare_layers(ours, theirs, natural_image((2, 7, 9)), common_layers(ours, theirs))
    assert [layer.name for layer in layers] == ours.layers()
    named = theirs.layers()
    assert sorted(ours.layers(), key=named.index) == ours.layers()
    assert layers[-1].name == named[-1] == "output"
    assert first_drift(layers, FP32_DRIFT) is None


@pytest.mark.skipif(cpu.library_path() is None, reason="no native operators")
def test_onnx_files_show_all_that_they_compute(models: Models) -> None:
    """The native backend computes a mixer at once, the portable one part by part."""
    names = [f"{models.onnx}:{backend}" for backend in ("native", "portable")]
    pair = [load(name).network for name in names]
    shown = common_layers(*pair)
    assert shown == pair[0].layers()
    layers = compare_layers(*pair, natural_image((1, 6, 5)), shown)
    assert first_drift(layers, FP32_DRIFT) is None
    assert "rssb0/vimm0" in shown
    inside = [name.removeprefix("rssb0/vimm0/") for name in pair[1].layers() if name not in shown]
    assert inside == [
        "norm",
        "in_proj_x",
        "in_proj_z",
        "conv1d",
        "x_proj_dt",
        "dt_proj",
        "x_proj_B",
        "x_proj_C",
        "scan",
    ]


def with_planes(source: Path, target: Path) -> Path:
    """The file as it was written before there was `Conv3x3`: convolutions and the sum of the skip
    are planes, and `DepthToSpace` enlarges them."""
    model = onnx.load(source)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    planes = {"conv_first", "rssb0/conv", "conv_after_body", "skip", "upsample/conv"}
    nodes: list[onnx.NodeProto] = []

    def moved(name: str, to: str, perm: list[int]) -> str:
        nodes.append(helper.make_node("Transpose", [name], [to], perm=perm))
        return to

    for node in model.graph.node:
        name = node.output[0]
        if name not in planes:
            taken = [f"{i}/as_pixels" if i in planes else i for i in node.input]
            del node.input[:]
            node.input.extend(taken)
            nodes.append(node)
            continue
        if node.op_type == "Add":
            nodes.append(node)
        else:
            x = node.input[0] + ("/as_pixels" if node.input[0] in planes else "")
            x = moved(x, f"{name}/as_planes", [0, 3, 1, 2])
            pads = [1, 1, 1, 1]
            nodes.append(helper.make_node("Conv", [x, *node.input[1:]], [name], pads=pads))
        if name == "upsample/conv":
            break
        moved(name, f"{name}/as_pixels", [0, 2, 3, 1])
    for tensor in (weights[f"upsample/conv.{of}"] for of in ("weight", "bias")):
        values = numpy_helper.to_array(tensor)
        of_shuffle = values.reshape(CONFIG.scale**2, 3, *values.shape[1:]).swapaxes(0, 1)
        tensor.CopyFrom(numpy_helper.from_array(of_shuffle.reshape(values.shape), tensor.name))
    shuffle = {"blocksize": CONFIG.scale, "mode": "CRD"}
    nodes.append(helper.make_node("DepthToSpace", ["upsample/conv"], ["output"], **shuffle))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("other", ["onnx", "safetensors"])
def test_files_with_planes_are_compared_in_every_layer(
    tmp_path: Path, models: Models, other: str
) -> None:
    former = load(f"{with_planes(models.onnx, tmp_path / 'former.onnx')}:portable").network
    now = load(f"{models.onnx}:portable" if other == "onnx" else str(models.safetensors)).network
    for pair in ((former, now), (now, former)):
        shown = common_layers(*pair)
        assert {"conv_first", "rssb0/conv", "conv_after_body", "skip", "output"} <= {*shown}
        assert ("upsample/conv" in shown) == (other == "onnx")
        layers = compare_layers(*pair, natural_image((2, 7, 9)), shown)
        assert first_drift(layers, FP32_DRIFT) is None


def test_a_backend_that_shows_no_layers() -> None:
    class Bare(Network):
        def __call__(self, image: np.ndarray) -> np.ndarray:
            return image

    with pytest.raises(UsageError, match=r"only checkpoints and \.onnx files"):
        common_layers(Bare(), Bare())


def run_without(package: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`dvmsr` in a process in which a package cannot be imported."""
    code = f"import sys; sys.modules[{package!r}] = None; from dvmsr.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_needs_torch_for_checkpoints_only(models: Models) -> None:
    pair = f"{models.onnx}:portable", f"{models.onnx_fp16}:portable"
    result = run_without("torch", "parity", *pair, "--layers", "--limits", "psnr=30")
    assert result.returncode == 0, result.stderr
    result = run_without("torch", "parity", models.pth, pair[0])
    assert result.returncode == 4 and "pip install 'dvmsr[train]'" in result.stderr


@pytest.mark.slow
def test_needs_onnx_for_layers_only(models: Models) -> None:
    pair = f"{models.onnx}:portable", f"{models.onnx_fp16}:portable"
    assert run_without("onnx", "parity", *pair, "--limits", "psnr=30").returncode == 0
    result = run_without("onnx", "parity", *pair, "--layers")
    assert result.returncode == 4
    assert result.stderr.startswith("error: ") and "pip install 'dvmsr[export]'" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--limits", "psnr"], 2, "--limits takes"),
        (["--limits", "delta-psnr=0.01"], 2, "needs --images"),
        (["--images", "nowhere.png"], 2, "nowhere.png"),
        (["--images", "text.png"], 1, "text.png is not a PNG"),
        (["--images", "."], 1, "text.png is not a PNG"),
        (["--heat-map", "text.png"], 2, "text.png exists"),
        (["--heat-map", "where.jpg"], 2, "must end in .png"),
        (["--heat-map", "nowhere/where.png"], 2, "nowhere is not a folder"),
        (["--threads", "0"], 2, "--threads"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments(
    folder: Path, command: Command, arguments: list[str], code: int, complaint: str
) -> None:
    (folder / "text.png").write_text("text")
    found, out, err = command("parity", "m.onnx:portable", "m.onnx:portable", *arguments)
    assert (found, out) == (code, "")
    assert complaint in err and "Traceback" not in err
    assert {path.name for path in folder.iterdir()} == {"m.onnx", "text.png"}


@pytest.mark.parametrize(
    ("model", "code", "complaint"),
    [
        ("m.onnx:gpu", 2, "no backend gpu"),
        ("m.onnx:torch", 2, "runs checkpoints"),
        ("missing.onnx", 2, "does not exist"),
        ("pupil", 2, "no model named pupil"),
        ("other.onnx", 5, "no ONNX file"),
    ],
)
def test_bad_models(folder: Path, command: Command, model: str, code: int, complaint: str) -> None:
    (folder / "other.onnx").write_text("text")
    found, out, err = command("parity", "m.onnx:portable", model)
    assert (found, out) == (code, "")
    assert err.startswith("error: ") and complaint in err and err.count("\n") == 1


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The official student as FP32 and FP16 file, and its checkpoint."""
    weights, folder = official_weights("dvmsr_df2k"), tmp_path_factory.mktemp("official")
    files: dict[str, str] = {"torch": str(weights)}
    for precision in ("fp32", "fp16"):
        files[precision] = str(folder / f"{precision}.onnx")
        export_onnx(weights, files[precision], precision=precision, verify=False)
    return files


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["fp32", "torch"])
def test_half_precision_keeps_the_official_scores(official: dict[str, Any], reference: str) -> None:
    """Set5 through ONNX Runtime: at least 60 dB, and PSNR within 0.01 dB on every image."""
    images = find_samples([shared_dir() / "eval" / "Set5"], 4)
    found, _ = compare(load(official["fp16"]), load(official[reference]), images)
    assert len(found) == 5
    for image in found:
        assert image.psnr >= 60
        assert image.delta_psnr is not None and abs(image.delta_psnr) <= 0.01
