"""Runs the CPU library that is the argument on the shared vectors and holds it to their truth.

Every tensor is in memory of its own size; sanitizers end it where they find something.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from conv3x3_vectors import (
    CONV3X3_CASES,
    CONV3X3_TOLERANCE,
    Conv3x3Case,
    conv3x3_error,
    conv3x3_inputs,
)
from mixer_vectors import EPSILON, MIXER_CASES, MixerCase, mixer_inputs, mixer_truth
from packed_kernels import packed_conv3x3, packed_mixer
from strip_vectors import STRIP_CASES, StripCase, strip_add_inputs, strip_add_truth
from vectors import (
    CHANNEL_MAJOR_CASES,
    CONV_CASES,
    SCAN_CASES,
    TOLERANCE,
    ScanCase,
    cast,
    conv_inputs,
    conv_truth,
    error,
    scan_inputs,
    scan_truth,
)

from dvmsr.kernels import cpu

EDGES = [
    ScanCase(2, length, groups * per_group, state, groups=groups)
    for length in (1, 3, 63, 65, 129)
    for per_group, groups, state in ((1, 2, 1), (15, 1, 3), (17, 2, 16), (33, 1, 17))
]
"""Around the vectors' widths and the runs of tokens."""
MIXER_EDGES = [
    MixerCase(2, length, inner, 3, 2, width, channels, 17, norm, in_proj)
    for length in (1, 95, 97)
    for inner, width, channels in ((1, 1, 17), (17, 4, 16), (33, 2, 1))
    for norm, in_proj in ((True, True), (False, False), (True, False))
]
CONV3X3_EDGES = [
    Conv3x3Case(2, size, 9 - size, channels, 18 - channels, pads)
    for size in (2, 4, 5)
    for channels in (1, 16, 17)
    for pads in ((0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0))
]


def pointers(tensors: dict[str, np.ndarray]) -> dict[str, int]:
    return {name: tensor.ctypes.data for name, tensor in tensors.items()}


def scan(case: ScanCase, dtype: str, threads: int) -> None:
    inputs = cast(scan_inputs(case), dtype)
    y, h_last = np.empty_like(inputs["u"]), np.empty_like(inputs["h0"])
    form = cpu.DTYPES[dtype], case.softplus, case.channel_major
    sizes = case.batch, case.length, case.channels, case.groups, case.state
    described = cpu.ScanInputs(*form, *sizes, **pointers(inputs))
    outputs = cpu.ScanOutputs(y.ctypes.data, h_last.ctypes.data)
    cpu.call("selective_scan_forward", described, outputs, threads=threads)
    truths = scan_truth(inputs, case.softplus, case.channel_major)
    for output, truth in zip((y, h_last), truths, strict=True):
        assert error(output, truth) <= TOLERANCE[dtype], (case, dtype, threads)
    if dtype != "float16":
        gradients = {name: np.empty_like(tensor) for name, tensor in inputs.items()}
        cpu.call(
            "selective_scan_backward",
            described,
            y.ctypes.data,
            h_last.ctypes.data,
            cpu.ScanGradients(**pointers(gradients)),
            threads=threads,
        )


def mixer(case: MixerCase, dtype: str, threads: int) -> None:
    inputs = mixer_inputs(case, dtype)
    with packed_mixer(inputs, EPSILON) as packed:
        outputs = packed(inputs, threads)
    for output, truth in zip(outputs, mixer_truth(inputs), strict=True):
        assert error(output, truth) <= TOLERANCE[dtype], (case, dtype, threads)


def conv3x3(case: Conv3x3Case, dtype: str, threads: int) -> None:
    x, weight, bias = conv3x3_inputs(case, dtype).values()
    for above in (0, 1, case.height):
        with packed_conv3x3(weight, bias) as packed:
            y = packed(x, case.pads, threads, above)
        assert conv3x3_error(y, x, weight, bias, case.pads) <= CONV3X3_TOLERANCE[dtype], case


def strip_add(case: StripCase, dtype: str, threads: int) -> None:
    inputs = strip_add_inputs(case, dtype)
    deep, x, waiting, top = (value.copy() for value in inputs.values())
    waits = 0 if top[0] else case.waiting
    y, row = np.empty_like(deep), case.width * case.channels
    sizes = case.batch, deep.shape[1], waits, case.height, row
    places = deep.ctypes.data, waiting.ctypes.data if waits else None, x.ctypes.data
    described = cpu.StripAddInputs(cpu.DTYPES[dtype], *sizes, *places)
    cpu.call("strip_add_forward", described, y.ctypes.data, threads=threads)
    np.testing.assert_array_equal(y, strip_add_truth(inputs)[0])


def nothing(dtype: str) -> None:
    """Of no batch element there is no memory, either."""
    mixed, pixels = mixer_inputs(MixerCase(1, 1, 3, 2), dtype), Conv3x3Case(1, 3, 3, 2, 2)
    with packed_mixer(mixed, EPSILON) as packed:
        inputs, outputs = cpu.MixerInputs(0, 5), cpu.MixerOutputs()
        cpu.call("mamba_mixer_forward", packed._handle, inputs, outputs, threads=2)
    _, weight, bias = conv3x3_inputs(pixels, dtype).values()
    with packed_conv3x3(weight, bias) as packed:
        inputs = cpu.Conv3x3Inputs(0, 3, 3, *pixels.pads)
        cpu.call("conv3x3_forward", packed._handle, inputs, None, threads=2)


def main() -> None:
    cpu.library_path = lambda: Path(sys.argv[1])
    edges = [replace(case, channel_major=layout) for case in EDGES for layout in (False, True)]
    for dtype in ("float32", "float16", "float64"):
        for case in (*SCAN_CASES, *CHANNEL_MAJOR_CASES, *edges):
            for threads in (1, 9):
                scan(case, dtype, threads)
        if dtype != "float64":
            nothing(dtype)
        for threads in (1, 9) if dtype != "float64" else ():
            for case in (*MIXER_CASES, *MIXER_EDGES):
                mixer(case, dtype, threads)
            for case in (*CONV3X3_CASES, *CONV3X3_EDGES):
                conv3x3(case, dtype, threads)
            for case in STRIP_CASES:
                strip_add(case, dtype, threads)
        for case in CONV_CASES:
            inputs = cast(conv_inputs(case), dtype)
            y, tail = np.empty_like(inputs["x"]), np.empty_like(inputs["tail"])
            sizes = case.batch, case.length, case.channels, case.width
            cpu.call(
                "causal_conv1d_forward",
                cpu.ConvInputs(cpu.DTYPES[dtype], case.activation, *sizes, **pointers(inputs)),
                cpu.ConvOutputs(y.ctypes.data, tail.ctypes.data),
                threads=2,
            )
            assert error(y, conv_truth(inputs, case.activation)[0]) <= TOLERANCE[dtype], case


if __name__ == "__main__":
    main()
