"""Step 2, the plugin object: TensorRT's calls on the device without TensorRT.

    python benchmarks/gpu/plugin.py

Builds the plugin for this GPU and has tests/plugins/tensorrt_driver.cpp create, configure, clone
and run it on device buffers, by a call and inside a CUDA graph, for every type and several tactics;
the results are held to FP64. Needs TensorRT's headers (TENSORRT_ROOT, the system's, or build/).
Exit code 3 where a result is off.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tools import Gpu, write

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))
from tensorrt_library import TYPES, build, call_of
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
    ScanCase(1, 4096, 120, 16, "slow decay"),
    ScanCase(1, 784, 768, 1, groups=4, gate=False),
    ScanCase(2, 65, 96, 16, groups=4, softplus=False),
]
CONVS = [
    ConvCase(2, 33, 120, 4),
    ConvCase(1, 4096, 120, 4),
    ConvCase(2, 33, 120, 4, activation=False),
]
TACTICS = (0, 64, 1024, cuda.WHOLE)


def run(
    driver: Path, plugin: Path, case: ScanCase | ConvCase, dtype: str, tactic: int,
    inputs: dict[str, np.ndarray], truths: tuple[np.ndarray, ...], types: tuple[str, str],
) -> dict[str, Any]:  # fmt: skip
    """One call of the driver, and how far it is off."""
    arguments = call_of(case, dtype, len(inputs), tactic)
    command = [str(driver), str(plugin), *arguments]
    data = b"".join(value.tobytes() for value in inputs.values())
    environment = {**os.environ, "DVMSR_CUDA_LIBRARY": str(cuda.load().path)}
    done = subprocess.run(command, input=data, capture_output=True, env=environment)
    found: dict[str, Any] = {
        "operator": arguments[0], "case": str(case), "dtype": dtype, "tactic": tactic,
        "status": done.returncode, "stderr": done.stderr.decode(errors="replace"), "ok": False,
    }  # fmt: skip
    if done.returncode == 0:
        worst, offset = 0.0, 0
        for truth, kind in zip(truths, types, strict=True):
            output = np.frombuffer(done.stdout, kind, truth.size, offset).reshape(truth.shape)
            offset += output.nbytes
            worst = max(worst, error(output, truth))
        found |= {"error": worst, "limit": TOLERANCE[dtype], "ok": worst <= TOLERANCE[dtype]}
    return found


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    gpu = Gpu()
    try:
        kind = "TENSORRT_ROOT" if os.environ.get("TENSORRT_ROOT") else "found"
        library = build(kind, gpu.info.compute_capability.replace(".", ""))
    except pytest.skip.Exception as reason:
        sys.exit(f"the plugin cannot be built: {reason}")
    checks = []
    with tempfile.TemporaryDirectory() as folder:
        driver = library.compile("tensorrt_driver.cpp", Path(folder) / "driver", "-rdynamic")
        for dtype in TYPES:
            for scan in SCANS:
                inputs = cast(scan_inputs(scan), dtype)
                checks += [
                    run(driver, library.pure, scan, dtype, tactic, inputs,
                        scan_truth(inputs, scan.softplus), (dtype, "float32"))
                    for tactic in TACTICS
                ]  # fmt: skip
            for conv in CONVS:
                inputs = cast(conv_inputs(conv), dtype)
                checks.append(
                    run(driver, library.pure, conv, dtype, 0, inputs,
                        conv_truth(inputs, conv.activation), (dtype, dtype))
                )  # fmt: skip
    wrong = [check for check in checks if not check["ok"]]
    for check in wrong:
        print(f"off: {check}", file=sys.stderr)
    write("plugin", gpu.info, {"what": "IPluginV3 on device buffers, call and graph",
          "checks": checks})  # fmt: skip
    return 3 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
