"""Half precision for any graph: what is half, what stays FP32, and what it computes."""

from __future__ import annotations

from pathlib import Path

import mamba_patterns as networks
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixer_model import mixer_model
from mixer_vectors import MIXER_FP32, MIXER_TOLERANCE, MixerCase, mixer_inputs, mixer_truth
from onnx import TensorProto, numpy_helper, parser
from torch import nn
from vectors import error

from dvmsr.errors import ParityError, UsageError
from dvmsr.export import export_network
from dvmsr.export.network.half import rounded, to_half
from dvmsr.export.onnx import bodies
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model
from dvmsr.runtime.backends.onnxrt.library import onnxruntime

pytest.importorskip("onnxscript")
HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT
native = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)


def retyped(text: str, opset: int = 18, **weights: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]>\n{text}')
    arrays = {name: numpy_helper.from_array(array, name) for name, array in weights.items()}
    model.graph.initializer.extend(arrays.values())
    to_half(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def computed(model: onnx.ModelProto, *arrays: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, arrays, strict=True))))


def casts(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "Cast" for node in model.graph.node)


def test_a_norm_of_large_values_is_computed_in_fp32() -> None:
    model = retyped(
        """g (float[N, 8] x) => (float[N, 8] y) {
            square = Pow (x, two)
            mean = ReduceMean <keepdims = 1> (square, axis)
            safe = Add (mean, eps)
            root = Sqrt (safe)
            inverse = Reciprocal (root)
            normal = Mul (x, inverse)
            y = Mul (normal, gain)
        }""",
        two=np.float32(2), eps=np.float32(1e-6), gain=np.full(8, 3, np.float32),
        axis=np.array([-1]),
    )  # fmt: skip
    x = np.random.default_rng(0).normal(0, 2000, (4, 8)).astype(np.float16)  # squares: up to 4e7
    wide = x.astype(np.float64)
    (y,) = computed(model, x)
    truth = 3 * wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(y, truth, rtol=2e-3)
    (tiny,) = computed(model, np.full((1, 8), 3e-4, np.float16))  # squares: 9e-8, as eps is
    np.testing.assert_allclose(tiny, 3 * 3e-4 / np.sqrt(9e-8 + 1e-6), rtol=5e-3)
    assert casts(model) == 2  # to the power and from the reciprocal
    assert next(w for w in model.graph.initializer if w.name == "eps").data_type == FULL
    assert next(w for w in model.graph.initializer if w.name == "gain").data_type == HALF


def test_whole_numbers_become_fractions_in_fp32() -> None:
    model = retyped(
        """g (float[N] x) => (float[N] y) {
            shape = Shape (x)
            n = Squeeze (shape)
            index = Range (zero, n, one)
            place = Cast <to = 1> (index)
            last = Mul (place, step)
            y = Add (x, last)
        }""",
        zero=np.int64(0), one=np.int64(1), step=np.float32(1 / 4096),
    )  # fmt: skip
    (y,) = computed(model, np.zeros(5000, np.float16))
    np.testing.assert_allclose(y, np.arange(5000) / 4096, rtol=1e-3)


def test_branches_take_fp32_from_around_them() -> None:
    model = retyped(
        """g (float[4] x, bool c) => (float[4] y) {
            double = Add (x, x)
            chosen = If (c) <
                then_branch = a () => (float[4] p) { p = Add (double, w) },
                else_branch = b () => (float[4] q) { q = Identity (double) }
            >
            y = Mul (chosen, w)
        }""",
        w=np.float32([1, 2, 3, 4]),
    )
    x = np.float16([1, 2, 3, 4])
    np.testing.assert_array_equal(computed(model, x, np.array(True))[0], (2 * x + x) * x)
    np.testing.assert_array_equal(computed(model, x, np.array(False))[0], 2 * x * x)


def test_what_an_operator_takes_in_fp32_alone() -> None:
    model = retyped(
        """g (float[1, 1, 2, 2] x) => (float[1, 1, H, W] y, int64[1, 1, 2, 2] k) {
            large = Resize <mode = "nearest"> (x, , scales)
            y = Relu (large)
            k = Cast <to = 7> (x)
        }""",
        scales=np.float32([1, 1, 2, 3]),
    )
    x = np.float16([[[[1, -2], [3, 4]]]])
    y, k = computed(model, x)
    np.testing.assert_array_equal(y, np.maximum(x.repeat(2, 2).repeat(3, 3), 0))
    np.testing.assert_array_equal(k, x)
    assert y.dtype == np.float16
    assert casts(model) == 1


def test_a_weight_that_is_needed_in_both() -> None:
    model = retyped(
        """g (float[2] x) => (float[2] y, float[2] z) {
            y = Add (x, w)
            z = Pow (w, x)
        }""",
        w=np.float32([3, 5]),
    )
    y, z = computed(model, np.float16([2, 3]))
    np.testing.assert_array_equal(y, [5, 8])
    np.testing.assert_array_equal(z, [9, 125])
    assert sorted(weight.data_type for weight in model.graph.initializer) == [FULL, HALF]


def test_zeros_that_are_made() -> None:
    model = retyped(
        """g (float[N] x) => (float[M] y) {
            shape = Shape (x)
            zeros = ConstantOfShape (shape)
            y = Concat <axis = 0> (x, zeros)
        }"""
    )
    (y,) = computed(model, np.float16([1, 2]))
    np.testing.assert_array_equal(y, np.float16([1, 2, 0, 0]))


@given(st.lists(st.floats(width=32), min_size=1))
def test_constants_keep_what_they_are(values: list[float]) -> None:
    array = np.float32(values)
    half = rounded(array)
    np.testing.assert_array_equal(np.isfinite(half), np.isfinite(array))
    np.testing.assert_array_equal(half == 0, array == 0)
    np.testing.assert_array_equal(np.signbit(half), np.signbit(array))
    inside = (np.abs(array) <= 65504) & (np.abs(array) >= 2.0**-14)
    np.testing.assert_allclose(half[inside], array[inside], rtol=2.0**-11)


@native
def test_four_directions(tmp_path: Path) -> None:
    path = tmp_path / "ss2d.fp16.onnx"
    report = export_network(
        *(networks.ss2d(), (torch.randn(1, 6, 12, 8),), path),
        *({"x": {0: "batch", 2: "height", 3: "width"}},),
        progress=lambda line: None,
        precision="fp16",
    )
    assert report.precision == "fp16"
    assert "Cast" not in report.nodes
    assert 1e-5 < max(check.difference for check in report.checks) <= 1e-2
    graph = onnx.load(path).graph
    (scan,) = (node for node in graph.node if node.op_type == "SelectiveScan")
    types = {weight.name: weight.data_type for weight in graph.initializer}
    assert [types[scan.input[port]] for port in (2, 5, 6)] == [FULL] * 3  # A, D, delta_bias
    model = open_model(path)
    assert (model.precision, model.inputs["x"].dtype) == ("fp16", "float16")


@pytest.mark.parametrize("case", [MixerCase(1, 7, 6, 4), MixerCase(1, 7, 6, 4, norm=False)])
def test_a_mixer(case: MixerCase) -> None:
    """Weights of products are half, those of scan and convolution and the state FP32."""
    inputs = mixer_inputs(case, "float32")
    model = mixer_model(inputs, weights=True)
    to_half(model)
    (node,) = model.graph.node
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    types |= {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    full = {name for name in node.input if types.get(name) == FULL}
    assert full == MIXER_FP32
    assert {types[name] for name in node.input if name and name not in full} == {HALF}
    outputs = [value.type.tensor_type.elem_type for value in model.graph.output]
    assert outputs == [HALF, HALF, FULL]
    bodies.attach(model)
    halves = mixer_inputs(case, "float16")
    for output, truth in zip(
        computed(model, halves["x"], halves["tail"], halves["h0"]), mixer_truth(halves), strict=True
    ):
        assert error(output, truth) <= MIXER_TOLERANCE["float16"]


@native
def test_states_stay_fp32(tmp_path: Path) -> None:
    class Last(nn.Module):
        def forward(self, u: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
            A, ones = -torch.ones(4, 2), torch.ones(*u.shape[:2], 1, 2)
            return networks.ops.selective_scan(u, u, A, ones, ones, h0=h)

    path = tmp_path / "last.onnx"
    inputs = (torch.rand(1, 7, 4), torch.rand(1, 4, 2))
    export_network(Last(), inputs, path, progress=lambda line: None, precision="fp16")
    model = open_model(path)
    assert [port.dtype for port in model.inputs.values()] == ["float16", "float32"]
    assert [port.dtype for port in model.outputs.values()] == ["float16", "float32"]


@native
def test_values_that_half_cannot_hold(tmp_path: Path) -> None:
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 1e5).relu() - (x * 1e5).sigmoid()

    path = tmp_path / "large.onnx"
    with pytest.raises(ParityError, match=r"half precision may not hold .*: export it in FP32"):
        export_network(Large(), (torch.rand(4),), path, progress=lambda _: None, precision="fp16")
    assert not path.exists()


def test_there_is_no_other_precision(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be one of fp32, fp16, not 'int8'"):
        export_network(nn.Identity(), (torch.rand(4),), tmp_path / "a.onnx", precision="int8")
