"""TensorRT's own part played by TensorRT for RTX under another name, whose engines nobody can load
here."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvmsr.export.trt import run as engine_run
from dvmsr.kernels import driver
from dvmsr.runtime.backends.trt import version

STAND_IN = """
import json
import os
from tensorrt_rtx_bindings import *
from tensorrt_rtx_bindings import Builder, ComputeCapability

__version__ = "10.14.1.48"
SHAPES = {}
LAYERS = []
PLUGIN = os.environ["DVMSR_TENSORRT_PLUGIN"]
create_config = Builder.create_builder_config


def for_one_card(builder):
    config = create_config(builder)
    config.num_compute_capabilities = 1
    config.set_compute_capability(ComputeCapability.SM89, 0)
    return config


class Engine:
    def __init__(self, plan):
        assert len(plan) > 1000

    create_execution_context = create_engine_inspector = lambda self: self

    def set_input_shape(self, name, shape):
        assert SHAPES.pop(name) == shape

    def get_engine_information(self, form):
        assert not SHAPES
        half = [{"Format/Datatype": "Half"}]
        return json.dumps({"Layers": [{"Name": name, "LayerType": kind, "Inputs": half}
                                      for name, kind in LAYERS]})


class Runtime:
    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, plan):
        embedded = len(plan) > os.path.getsize(PLUGIN)
        if embedded and get_plugin_registry().load_library(PLUGIN) is None:
            return None
        return Engine(plan)


def without_a_runtime(builder, network, config):
    flag = BuilderFlag.VERSION_COMPATIBLE  # as of TensorRT's engines that carry libraries
    assert config.get_flag(flag) == (len(config.plugins_to_serialize) > 0)
    config.clear_flag(flag)  # TensorRT for RTX has no runtime to put in
    return build(builder, network, config)


build = Builder.build_serialized_network
Builder.build_serialized_network = without_a_runtime
Builder.create_builder_config = for_one_card
"""


def play(
    monkeypatch: pytest.MonkeyPatch,
    shapes: dict[str, tuple[int, ...]],
    layers: list[tuple[str, str]],
) -> None:
    """Put it in place of TensorRT, on a machine with a GPU, in the current folder.

    Args:
        shapes: of the inputs with which its engines are to be inspected.
        layers: names and kinds, all in half precision, that the inspector is to tell.
    """
    Path("link").mkdir()
    engine_run.link_rtx(Path("link"))
    text = STAND_IN.replace("SHAPES = {}", f"SHAPES = {shapes}")
    Path("link/tensorrt.py").write_text(text.replace("LAYERS = []", f"LAYERS = {layers}"))
    monkeypatch.setenv("LD_LIBRARY_PATH", "link")
    monkeypatch.syspath_prepend(Path("link").resolve())
    monkeypatch.setattr(version, "installed_version", lambda target: "10.14.1.48")
    monkeypatch.setattr(driver, "first", lambda: driver.Gpu("A GPU", "8.9"))
