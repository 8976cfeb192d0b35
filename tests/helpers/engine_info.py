"""A description of an engine, and bytes that stand for its plan."""

from __future__ import annotations

import hashlib

import dvmsr
from dvmsr.config import DVMSRConfig
from dvmsr.runtime.backends.trt.engine_info import EngineInfo, PluginInfo
from dvmsr.runtime.backends.trt.profiles import Profile

PLAN = b"ftrt" + bytes(1000)
INFO = EngineInfo(
    plan_sha256=hashlib.sha256(PLAN).hexdigest(),
    plan_bytes=len(PLAN),
    target="gpu",
    tensorrt="10.14.1.48",
    version_compatible=False,
    gpu="Some GPU",
    compute_capabilities=("8.9",),
    precision="fp16",
    profiles=Profile((1, 16, 16), (1, 256, 256), (2, 1024, 1024)).inputs(),
    plugin=PluginInfo("1", 10, "ab" * 32, False),
    plugin_layers=16,
    layers={"fp16": 90, "fp32": 3},
    onnx_sha256="cd" * 32,
    model={"dvmsr.config": DVMSRConfig().to_json(), "dvmsr.checkpoint": "net.safetensors"},
    build_seconds=12.5,
    key="ef" * 32,
    command=("dvmsr-export", "trt", "my net.safetensors", "--fp16"),
    dvmsr=dvmsr.__version__,
)
