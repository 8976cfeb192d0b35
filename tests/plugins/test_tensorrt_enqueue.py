"""The plugins' enqueue() over the kernels compiled for the host, against the FP64 truth."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorrt_library import PLUGINS, build, call_of
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

TYPES = "float32", "float16"
SCANS = [
    ScanCase(2, 7, 5, 3),
    ScanCase(2, 65, 20, 16),
    ScanCase(1, 300, 7, 16, "slow decay"),
    ScanCase(2, 65, 20, 16, groups=4),
    ScanCase(2, 65, 20, 1, groups=4, gate=False),
    ScanCase(2, 33, 6, 16, softplus=False),
    ScanCase(2, 33, 6, 16, groups=2, gate=False, softplus=False),
]
CONVS = [
    ConvCase(1, 1, 1, 1),
    ConvCase(2, 33, 120, 4),
    ConvCase(3, 9, 16, 7),
    ConvCase(2, 33, 120, 4, activation=False),
]

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
        case: ScanCase | ConvCase,
        dtype: str,
        inputs: dict[str, np.ndarray],
        tactic: int = 0,
        device: str = "",
    ) -> object:
        arguments = call_of(case, dtype, len(inputs), tactic)
        command = [driver, plugin, *arguments]
        data = b"".join(value.tobytes() for value in inputs.values())
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


@pytest.mark.parametrize("tactic", [0, 1, 2, 6, 9])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", SCANS, ids=str)
def test_scan(run: Run, case: ScanCase, dtype: str, tactic: int) -> None:
    inputs = cast(scan_inputs(case), dtype)
    truths = scan_truth(inputs, case.softplus)
    result = run(case, dtype, inputs, tactic)
    for output, truth in zip(outputs_of(result, truths, [dtype, "float32"]), truths, strict=True):
        assert error(output, truth) <= TOLERANCE[dtype]


@pytest.mark.parametrize("case", [SCANS[1], SCANS[-1]], ids=str)
def test_scan_in_device_memory_as_a_call_and_as_a_graph(
    run: Run, cuda_on_host: Path, case: ScanCase
) -> None:
    """As benchmarks/gpu/plugin.py does on a GPU, here on the emulated device."""
    inputs = cast(scan_inputs(case), "float16")
    truths = scan_truth(inputs, case.softplus)
    result = run(case, "float16", inputs, 5, str(cuda_on_host))
    outputs = outputs_of(result, truths, ["float16", "float32"])
    for output, truth in zip(outputs, truths, strict=True):
        assert error(output, truth) <= TOLERANCE["float16"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", CONVS, ids=str)
def test_conv(run: Run, case: ConvCase, dtype: str) -> None:
    inputs = cast(conv_inputs(case), dtype)
    truths = conv_truth(inputs, case.activation)
    result = run(case, dtype, inputs)
    for output, truth in zip(outputs_of(result, truths, [dtype, dtype]), truths, strict=True):
        assert error(output, truth) <= TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (ScanCase(1, 2, 3, 65), b"the state N must be from 1 to 64; run this model on another"),
        (ScanCase(1, 2, 4, 256, groups=4, gate=False), b"the state N must be from 1 to 64"),
    ],
    ids=str,
)
def test_refuses_a_state_beyond_the_kernels(run: Run, case: ScanCase, message: bytes) -> None:
    result = run(case, "float32", cast(scan_inputs(case), "float32"))
    assert result.returncode == 1
    assert message in result.stderr
