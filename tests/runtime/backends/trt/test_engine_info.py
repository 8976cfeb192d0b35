from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from engine_info import INFO

from dvmsr.errors import IncompatibleModelError
from dvmsr.runtime.backends.trt.engine_info import check_host


def test_where_it_runs() -> None:
    path = Path("net.engine")
    check_host(path, INFO, "gpu", "10.14.1.48", "8.9")
    check_host(path, replace(INFO, version_compatible=True), "gpu", "10.15.2", "8.9")
    for target, version, capability, message in (
        ("gpu", "10.15.1.20", "8.9", "built by TensorRT 10.14.1.48, and this is TensorRT 10.15"),
        ("rtx", "1.7.1.116", "8.9", "and this is TensorRT for RTX 1.7.1.116"),
        ("gpu", "10.14.1.48", "9.0", "for compute capability 8.9, and this GPU has 9.0"),
    ):
        with pytest.raises(IncompatibleModelError, match=message) as error:
            check_host(path, INFO, target, version, capability)
        assert str(error.value).endswith(
            f"dvmsr-export trt 'my net.safetensors' --fp16 -o {path.absolute()}"
        )
    with pytest.raises(IncompatibleModelError, match="this is TensorRT 11"):
        check_host(path, replace(INFO, version_compatible=True), "gpu", "11.0.0", "8.9")


def test_the_remedy_names_this_engine_and_this_gpu() -> None:
    """What is built must run here, and on the GPUs on which the engine runs already."""
    command = (
        *INFO.command,
        "--compute-capability",
        "8.6",
        "-o",
        "/elsewhere/a.engine",
        "--overwrite",
    )
    rtx = replace(INFO, target="rtx", compute_capabilities=("8.6",), command=command)
    with pytest.raises(IncompatibleModelError) as error:
        check_host(Path("/here/b c.engine"), rtx, "rtx", rtx.tensorrt, "12.0")
    assert str(error.value).endswith(
        "dvmsr-export trt 'my net.safetensors' --fp16 --overwrite "
        "--compute-capability 8.6 --compute-capability 12.0 -o '/here/b c.engine'"
    )
