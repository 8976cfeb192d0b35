"""Configurations of models, read by Triton's own definition of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def read(model: Path) -> Any:
    """The `ModelConfig` in a model's folder; skips the running test without tritonclient."""
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient")
    from google.protobuf import text_format

    return text_format.Parse((model / "config.pbtxt").read_text(), pb2.ModelConfig())


def tensors(ports: Any) -> dict[str, tuple[str, list[int]]]:
    """Type and sizes of each input or output by name."""
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    return {port.name: (pb2.DataType.Name(port.data_type), list(port.dims)) for port in ports}
