"""The plugins' enqueue() over the kernels compiled for the host, against the FP64 truth."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorrt_library import PLUGINS, build
from vectors import (
    TOLERANCE,
    ConvCase,
    ScanCase,
    cast,
    conv_inputs,
    conv_truth,
    error,
    scan_inputs,
    scan_truth,
)

pytestmark = pytest.mark.slow

TYPES = {"float32": 0, "float16": 1}  # nvinfer1::DataType
WHOLE = 2**31 - 1
SCANS = [ScanCase(2, 7, 5, 3), ScanCase(2, 65, 20, 16), ScanCase(1, 300, 7, 16, "slow decay")]
CONVS = [ConvCase(1, 1, 1, 1), ConvCase(2, 33, 120, 4), ConvCase(3, 9, 16, 7)]

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Has the driver call enqueue(), with the address sanitizer watching the workspace."""
    library = build("found")
    folder = tmp_path_factory.mktemp("enqueue")
    flags = ["-fsanitize=address"]
    driver = library.compile("tensorrt_driver.cpp", folder / "driver", "-rdynamic", *flags)
    source = PLUGINS / "tensorrt" / "plugin.cpp"
    plugin = library.compile_for_host(folder / "libplugin.so", source, *flags)

    def run(
        op: str, sizes: dict[str, int], dtype: str, tactic: int, data: bytes, device: str = ""
    ) -> object:
        axes = [str(part) for item in sizes.items() for part in item]
        command = [driver, plugin, op, str(TYPES[dtype]), str(tactic), *axes]
        environment = {k: v for k, v in os.environ.items() if k != "DVMSR_CUDA_LIBRARY"}
        if device:
            environment["DVMSR_CUDA_LIBRARY"] = device
        return subprocess.run(
            command, input=data, capture_output=True, check=False, env=environment
        )

    return run


def outputs_of(
    result: subprocess.CompletedProcess[bytes], truths: tuple[np.ndarray, ...], dtypes: list[str]
) -> list[np.ndarray]:
    assert result.returncode == 0, result.stderr.decode()
    outputs, offset = [], 0
    for truth, dtype in zip(truths, dtypes, strict=True):
        outputs.append(np.frombuffer(result.stdout, dtype, truth.size, offset).reshape(truth.shape))
        offset += outputs[-1].nbytes
    assert offset == len(result.stdout)
    return outputs


def data_of(inputs: dict[str, np.ndarray]) -> bytes:
    return b"".join(value.tobytes() for value in inputs.values())


@pytest.mark.parametrize("tactic", [0, 64, WHOLE])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", SCANS, ids=str)
def test_scan(run: Run, case: ScanCase, dtype: str, tactic: int) -> None:
    inputs = cast(scan_inputs(case), dtype)
    truths = scan_truth(inputs)
    sizes = {"B": case.batch, "L": case.length, "D": case.channels, "N": case.state}
    result = run("SelectiveScan", sizes, dtype, tactic, data_of(inputs))
    for output, truth in zip(outputs_of(result, truths, [dtype, "float32"]), truths, strict=True):
        assert error(output, truth) <= TOLERANCE[dtype]


def test_scan_in_device_memory_as_a_call_and_as_a_graph(run: Run, cuda_on_host: Path) -> None:
    """As benchmarks/gpu/plugin.py does on a GPU, here on the emulated device."""
    inputs = cast(scan_inputs(SCANS[1]), "float16")
    truths = scan_truth(inputs)
    sizes = {"B": 2, "L": 65, "D": 20, "N": 16}
    data = data_of(inputs)
    result = run("SelectiveScan", sizes, "float16", 64, data, str(cuda_on_host))
    outputs = outputs_of(result, truths, ["float16", "float32"])
    for output, truth in zip(outputs, truths, strict=True):
        assert error(output, truth) <= TOLERANCE["float16"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", CONVS, ids=str)
def test_conv(run: Run, case: ConvCase, dtype: str) -> None:
    inputs = cast(conv_inputs(case), dtype)
    truths = conv_truth(inputs)
    sizes = {"B": case.batch, "L": case.length, "D": case.channels, "K": case.width}
    sizes["k"] = case.width - 1
    result = run("CausalConv1d", sizes, dtype, 0, data_of(inputs))
    for output, truth in zip(outputs_of(result, truths, [dtype, dtype]), truths, strict=True):
        assert error(output, truth) <= TOLERANCE[dtype]


def test_refuses_a_state_beyond_the_kernels(run: Run) -> None:
    inputs = cast(scan_inputs(ScanCase(1, 2, 3, 65)), "float32")
    sizes = {"B": 1, "L": 2, "D": 3, "N": 65}
    result = run("SelectiveScan", sizes, "float32", 0, data_of(inputs))
    assert result.returncode == 1
    assert b"the state N must be from 1 to 64" in result.stderr
