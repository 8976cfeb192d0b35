"""Reshapes that take a 0 for a size, and those that must not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, parser
from onnx.reference import ReferenceEvaluator

from dvmsr.export.trt.reshapes import take_zeros_for_sizes

TEXT = """<ir_version: 8, opset_import: ["":18]>
g (float[N,4,6] x, int64[2] told) => (float[A,B] y) <int64[1] zero = {0}, int64[1] rest = {-1}> {
    n = Shape <start = 0, end = 1> (x)
    c = Shape <start = 1, end = 2> (x)
    two = Constant <value = int64[1] {2}> ()
    half = Div (c, two)
    pair = Mul (n, half)
    %s
    y = Reshape (x, sizes)
}"""


def flag(sizes: str, opset: int = 18, allowzero: int | None = None) -> list[int]:
    """The values of the Reshape's attribute allowzero."""
    text = TEXT % sizes
    model = parser.parse_model(text.replace('"":18', f'"":{opset}'))
    reshape = model.graph.node[-1]
    if allowzero is not None:
        reshape.attribute.append(helper.make_attribute("allowzero", allowzero))
    before = onnx.ModelProto()
    before.CopyFrom(model)
    take_zeros_for_sizes(model)
    if "told" not in sizes and opset == 18:
        feeds = {"x": np.random.rand(3, 4, 6).astype(np.float32), "told": np.array([3, 24])}
        results = [ReferenceEvaluator(each).run(None, feeds)[0] for each in (before, model)]
        np.testing.assert_array_equal(*results)
    return [entry.i for entry in reshape.attribute if entry.name == "allowzero"]


@pytest.mark.parametrize(
    "sizes",
    [
        "sizes = Concat <axis = 0> (pair, rest)",
        "wide = Cast <to = 7> (pair)  sizes = Concat <axis = 0> (wide, rest)",
        "sizes = Concat <axis = 0> (n, two, rest)",
    ],
)
def test_computed_sizes_are_sizes(sizes: str) -> None:
    assert flag(sizes) == [1]
    assert flag(sizes, opset=13) == []
    assert flag(sizes, allowzero=0) == [1]  # its default, as PyTorch's exporter writes it


@pytest.mark.parametrize(
    "sizes",
    [
        "sizes = Concat <axis = 0> (zero, rest)",
        "none = Constant <value = int64[1] {0}> ()  sizes = Concat <axis = 0> (none, pair, rest)",
        "sizes = Constant <value_ints = [0, -1]> ()",
        "sizes = Identity (told)",
    ],
)
def test_a_zero_that_is_written_there_stays_the_size_before(sizes: str) -> None:
    assert flag(sizes) == []
    assert flag(sizes, allowzero=0) == [0]
