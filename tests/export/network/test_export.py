"""Networks of others as ONNX files: what is written, what is verified, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import mamba_patterns as networks
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from dvmsr.errors import DvmsrError, IncompatibleModelError, ParityError, UsageError
from dvmsr.export import export_network
from dvmsr.export.network import verify as verification
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.onnx_file import read_header

pytest.importorskip("onnxscript")
pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)

IMAGE = {"x": {0: "batch", 2: "height", 3: "width"}}
SILENT = {"progress": lambda line: None}


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(cpu.library_path()))
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_four_directions_with_dynamic_sizes(tmp_path: Path) -> None:
    path = tmp_path / "ss2d.onnx"
    lines: list[str] = []
    report = export_network(
        networks.ss2d(), (torch.randn(1, 6, 12, 8),), path, IMAGE, progress=lines.append
    )
    assert report.inputs == {"x": ["batch", 6, "height", "width"]}
    assert report.nodes["SelectiveScan"] == 1
    assert not {"Einsum", "ScatterND"} & set(report.nodes)
    assert "2 einsums became matrix products" in lines
    assert "3 assignments to slices became concatenations" in lines
    tried = [check.sizes for check in report.checks if check.backend == "native"]
    for axis, wanted in (("batch", 2), ("height", 3), ("width", 3)):
        assert len({sizes[axis] for sizes in tried}) >= wanted
    assert {check.backend for check in report.checks} == {"native", "portable"}
    module = networks.ss2d()
    for shape in ((3, 6, 5, 7), (1, 6, 1, 9)):
        x = torch.randn(shape)
        (y,) = session(path).run(None, {"x": x.numpy()})
        np.testing.assert_allclose(y, module(x).detach().numpy(), atol=1e-5)


def test_two_outputs_and_a_keyword(tmp_path: Path) -> None:
    path = tmp_path / "gated.onnx"
    module = networks.gated()
    inputs = {"tokens": torch.randn(2, 9, 8), "scale": torch.tensor(0.5)}
    report = export_network(module, inputs, path, {"tokens": {0: "batch", 1: "length"}}, **SILENT)
    assert list(report.outputs) == ["tokens_out", "states"]  # an input is called tokens
    assert (report.nodes["SelectiveScan"], report.nodes["CausalConv1d"]) == (2, 2)
    tokens, states = session(path).run(None, {k: v.numpy() for k, v in inputs.items()})
    expected = module(**inputs)
    np.testing.assert_allclose(tokens, expected["tokens"].detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(states, expected["states"].detach().numpy(), atol=1e-5)


def test_the_file_says_what_it_is_and_nothing_of_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "ss2d.onnx"
    export_network(
        networks.ss2d(), (torch.randn(1, 6, 12, 8),), path, IMAGE, source="my:net", **SILENT
    )
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["dvmsr.network"] == "my:net"
    assert json.loads(said["dvmsr.dynamic"]) == {"x": {"0": "batch", "2": "height", "3": "width"}}
    assert str(Path(__file__).parent.parent).encode() not in path.read_bytes()
    assert [body.name for body in model.functions] == ["SelectiveScan"]
    with pytest.raises(IncompatibleModelError, match="another network than DVMSR, my:net; run it"):
        read_header(path)


def test_windows(tmp_path: Path) -> None:
    path = tmp_path / "windows.onnx"
    x = torch.randn(1, 6, 16, 16)
    report = export_network(networks.Windows(False), (x,), path, IMAGE, **SILENT)
    assert len({check.sizes["height"] for check in report.checks}) >= 3


REFUSED: list[tuple[str, nn.Module, tuple[int, ...], dict[int, str], str]] = [
    ("fixed", networks.Windows(True), (1, 6, 16, 16), IMAGE["x"], "a size is fixed|fixes the size"),
    (
        "padded",
        networks.Padded(),
        (1, 3, 16, 4),
        {2: "height"},
        "outputs of other shapes .* height 17",
    ),
    ("nan", networks.NotFinite(), (1, 4), {}, "output for the example is not finite"),
    (
        "random",
        networks.Noise(),
        (1, 3, 8, 8),
        {},
        r"draws random numbers at .*patterns\.py, line \d+",
    ),
    (
        "data",
        networks.Branch(),
        (1, 3, 8, 8),
        {},
        r"decides by values .*patterns\.py, line \d+",
    ),
    (
        "operator",
        networks.Untranslated(),
        (2, 3),
        {},
        r"aten\.special_airy_ai.*patterns\.py, line",
    ),
    (
        "form",
        networks.ManyAxes(),
        (1, 4, 8),
        {},
        r"aten\.scaled_dot.*, used at .*patterns\.py, line \d+, .*\(AssertionError: only 4D query",
    ),
]


@pytest.mark.parametrize(
    ("module", "shape", "axes", "message"),
    [case[1:] for case in REFUSED],
    ids=[case[0] for case in REFUSED],
)
def test_what_cannot_be_is_told_in_one_sentence(
    tmp_path: Path, module: nn.Module, shape: tuple[int, ...], axes: dict[int, str], message: str
) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(IncompatibleModelError, match=message) as caught:
        export_network(module, (torch.rand(shape),), path, {"x": axes}, **SILENT)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_sizes_that_pytorch_refuses_are_left_out_and_named(tmp_path: Path) -> None:
    lines: list[str] = []
    path, x, axes = tmp_path / "m.onnx", torch.rand(1, 3, 16, 16), {"x": {2: "height"}}
    report = export_network(networks.Picky(64), (x,), path, axes, progress=lines.append)
    assert sorted({check.sizes["height"] for check in report.checks}) == [8, 16, 32]
    assert any(line.startswith("left out height 17: PyTorch fails there") for line in lines)
    with pytest.raises(IncompatibleModelError, match="PyTorch itself takes only 16, 8 of the"):
        export_network(networks.Picky(16), (x,), tmp_path / "n.onnx", axes, progress=lines.append)
    assert any(line.startswith("left out height 32: PyTorch fails there") for line in lines)
    assert list(tmp_path.iterdir()) == [path]


def test_labels_of_axes_that_must_be_equal_are_named(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    axes = {"x": {0: "first", 1: "width"}, "y": {0: "second"}}
    pair = torch.rand(3, 8), torch.rand(3, 8)
    with pytest.raises(IncompatibleModelError, match="give second the same label if it must be as"):
        export_network(Sum(), pair, tmp_path / "n.onnx", axes, **SILENT)
    assert list(tmp_path.iterdir()) == []


def test_a_branch_that_the_file_lacks_is_told(tmp_path: Path) -> None:
    lines: list[str] = []
    export_network(
        networks.Limited(), (torch.rand(1, 3, 16, 4),), tmp_path / "l.onnx", {"x": {2: "height"}},
        progress=lines.append,
    )  # fmt: skip
    assert "the file is right where height is at most 300 alone" in " ".join(lines)


def test_outputs_that_are_inputs_or_constants(tmp_path: Path) -> None:
    x = torch.rand(2, 4)
    before = x.clone()
    report = export_network(networks.Odd(), (x,), tmp_path / "o.onnx", **SILENT)
    assert torch.equal(x, before)
    assert list(report.outputs) == ["output_0", "output_1", "output_2"]
    same, ones, twice = session(tmp_path / "o.onnx").run(None, {"x": x.numpy()})
    np.testing.assert_array_equal(same, x.numpy())
    np.testing.assert_array_equal(ones, np.ones(3))
    np.testing.assert_array_equal(twice, 2 * x.numpy())


def test_an_einsum_that_broadcasts_stays_one(tmp_path: Path) -> None:
    class Broadcast(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.einsum("bik,bkj->bij", x, y)

    inputs = torch.rand(2, 3, 1), torch.rand(2, 4, 5)
    report = export_network(Broadcast(), inputs, tmp_path / "e.onnx", **SILENT)
    assert report.nodes["Einsum"] == 1


def test_a_network_that_fails_on_its_example(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"fails on its example inputs .*RuntimeError"):
        export_network(networks.ss2d(), (torch.rand(1, 5, 8, 8),), tmp_path / "n.onnx", **SILENT)


def test_a_difference_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(verification.LIMITS, "fp32", 0.0)
    monkeypatch.setattr(verification, "ROUNDING", 0.0)
    path = tmp_path / "net.onnx"
    with pytest.raises(ParityError, match=r"differs from PyTorch by .* it was not written"):
        export_network(networks.ss2d(), (torch.randn(1, 6, 12, 8),), path, **SILENT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("inputs", "dynamic", "message"),
    [
        (torch.rand(1, 6, 8, 8), None, "example_inputs is a tensor; give a tuple"),
        ({"x": np.zeros(3)}, None, "the example input x is of type ndarray, no tensor"),
        ((torch.rand(1, 6, 8, 8),) * 2, None, "2 example inputs are too many: forward takes x"),
        ({"y": torch.rand(1, 6, 8, 8)}, None, "forward has no parameter y; it takes x"),
        ((torch.rand(1, 6, 8, 8),), {"x": {4: "depth"}}, "x has 4 axes, so none with number 4"),
        ((torch.rand(1, 6, 8, 8),), {"y": {0: "batch"}}, "there is no input y; there is x"),
        ((torch.rand(1, 6, 8, 9),), {"x": {2: "side", 3: "side"}}, "side have 8 and 9"),
    ],
)
def test_bad_inputs(tmp_path: Path, inputs: object, dynamic: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export_network(networks.ss2d(), inputs, tmp_path / "n.onnx", dynamic, **SILENT)  # type: ignore[arg-type]


class Ends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise SystemExit(3)


def test_a_network_that_ends_the_process_is_told(tmp_path: Path) -> None:
    with pytest.raises(DvmsrError, match=r"ends the process .* at .*test_export\.py, line \d+"):
        export_network(Ends(), (torch.rand(1, 4),), tmp_path / "n.onnx")
    assert not list(tmp_path.iterdir())
