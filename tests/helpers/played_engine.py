"""Engine files for `fake_tensorrt`."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import fake_tensorrt
from engine_info import INFO
from small_model import CONFIG

from dvmsr.runtime.backends.trt import engine_file
from dvmsr.runtime.backends.trt.engine_info import PluginInfo
from dvmsr.runtime.backends.trt.profiles import Profile

PROFILE = Profile((1, 4, 4), (1, 16, 16), (2, 40, 48))


def write(path: Path, onnx: Path, **changed: object) -> Path:
    """An engine of `fake_tensorrt` that computes what an ONNX file does, with its description.

    Args:
        changed: fields of the description.
    """
    plugin = changed.get("plugin")
    carried = isinstance(plugin, PluginInfo) and plugin.embedded
    plan = ((fake_tensorrt.CARRIED if carried else "") + str(onnx)).encode()
    info = replace(
        INFO,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        tensorrt=fake_tensorrt.VERSION,
        compute_capabilities=("9.0",),
        precision="fp16" if "fp16" in onnx.name else "fp32",
        profiles=PROFILE.inputs(),
        plugin=None,
        model={"dvmsr.config": CONFIG.to_json()},
    )
    engine_file.write_engine(path, plan, replace(info, **changed), overwrite=True)
    return path
