"""Step 2, the plugin object: TensorRT's calls on the device without TensorRT.

    python benchmarks/gpu/plugin.py

Builds the plugin for this GPU and has tests/plugins/tensorrt_driver.cpp create, configure,
clone and run it on device buffers, by a call and inside a CUDA graph, for every type and
several tactics; the results are held to FP64, within the limits of `correctness.py`. Needs
TensorRT's headers (TENSORRT_ROOT, the system's, or build/) and CMake. DVMSR_GPU_PLUGIN names a
plugin that was built before, so that only the driver is compiled. Exit code 3 where a result
is off.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from correctness import Limits
from results import OFF, Deadline, Pace, Results, parser, read, step
from tools import Gpu

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))
from tensorrt_library import TYPES, Library, call_of, made
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

from dvmsr.kernels import cuda

SCANS = [
    ScanCase(2, 65, 120, 16),
    ScanCase(2, 65, 96, 16, groups=4, softplus=False),
    ScanCase(1, 784, 768, 1, groups=4, gate=False),
    ScanCase(1, 4096, 120, 16, "slow decay"),
]
CONVS = [
    ConvCase(2, 33, 120, 4),
    ConvCase(2, 33, 120, 4, activation=False),
    ConvCase(1, 784, 120, 4),
    ConvCase(1, 4096, 120, 4),
]
SMALL = 100
"""The longest scan of --small."""
TACTICS = (0, 1, 2, 6, 8)
"""The cost model's choice, and of each variant one part and several."""


Case = tuple[ScanCase | ConvCase, dict[str, np.ndarray], tuple[np.ndarray, ...], float]
"""What it is, inputs, truths, and what the bias of ex2.approx does to them."""


def run(
    driver: Path, plugin: Path, case: Case, dtype: str, tactic: int, types: tuple[str, str]
) -> dict[str, Any]:
    """One call of the driver, and how far it is off."""
    what, inputs, truths, of_bias = case
    arguments = call_of(what, dtype, len(inputs), tactic)
    command = [str(driver), str(plugin), *arguments]
    data = b"".join(value.tobytes() for value in inputs.values())
    environment = {**os.environ, "DVMSR_CUDA_LIBRARY": str(cuda.load().path)}
    done = subprocess.run(command, input=data, capture_output=True, env=environment)
    limit = TOLERANCE[dtype] + of_bias
    found: dict[str, Any] = {
        "operator": arguments[0], "case": str(what), "dtype": dtype, "tactic": tactic,
        "status": done.returncode, "stderr": done.stderr.decode(errors="replace"),
        "limit": limit, "limit_of_bias": of_bias, "ok": False,
    }  # fmt: skip
    if done.returncode == 0:
        worst, offset = 0.0, 0
        for truth, kind in zip(truths, types, strict=True):
            output = np.frombuffer(done.stdout, kind, truth.size, offset).reshape(truth.shape)
            offset += output.nbytes
            worst = max(worst, error(output, truth))
        found |= {"error": worst, "ok": worst <= limit}
    return found


def library_of(gpu: Gpu) -> tuple[Library, Path]:
    """What compiles the driver, and the plugin.

    Raises:
        MissingComponentError: without TensorRT's headers, nvcc or CMake.
        DvmsrError: if the plugin does not compile.
    """
    kind = "TENSORRT_ROOT" if os.environ.get("TENSORRT_ROOT") else "found"
    library = made(kind, gpu.info.compute_capability.replace(".", ""))
    return library, Path(os.environ.get("DVMSR_GPU_PLUGIN") or library.pure)


def scan_case(scan: ScanCase, dtype: str, limits: Limits) -> Case:
    inputs = cast(scan_inputs(scan), dtype)
    truths = scan_truth(inputs, scan.softplus)
    return scan, inputs, truths, limits.of_bias(inputs, scan.softplus, truths)


def conv_case(conv: ConvCase, dtype: str) -> Case:
    inputs = cast(conv_inputs(conv), dtype)
    return conv, inputs, conv_truth(inputs, conv.activation), 0.0


def main() -> int:
    arguments = parser(__doc__).parse_args()
    pace = Pace(Deadline(arguments.seconds))
    gpu = Gpu()
    limits = Limits((read("facts", gpu.info.name) or {}).get("ex2"))
    what = "IPluginV3 on device buffers, call and graph"
    results = Results("plugin", gpu.info.name, gpu.info, what)
    results.put(limits=limits.explain(), checks=[])
    library, plugin = library_of(gpu)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        driver = library.compile("tensorrt_driver.cpp", Path(folder) / "driver", "-rdynamic")
        for scan, conv in zip(SCANS, CONVS, strict=True):
            for dtype in TYPES:
                if arguments.small and scan.length > SMALL:
                    continue
                if not pace.allows(scan.length):
                    results.leave_out(f"{scan} and {conv} {dtype}")
                    continue
                with pace.timed(scan.length):
                    case = scan_case(scan, dtype, limits)
                    checks = [
                        run(driver, plugin, case, dtype, tactic, (dtype, "float32"))
                        for tactic in TACTICS
                    ]
                    case = conv_case(conv, dtype)
                    checks.append(run(driver, plugin, case, dtype, 0, (dtype, dtype)))
                for check in checks:
                    results.add("checks", check)
                    if not check["ok"]:
                        wrong += 1
                        print(f"off: {check}", file=sys.stderr)
    results.finish()
    print(f"{len(results.content['checks'])} checks, {wrong} off", file=sys.stderr)
    return OFF if wrong else 0


if __name__ == "__main__":
    step(main)
