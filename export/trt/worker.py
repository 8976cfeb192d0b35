"""Builds one engine, as a program in a process of its own with the job's file as argument.

A process of its own, because TensorRT for RTX wants its library path set before it starts, because
an interrupt does not reach Python while TensorRT builds, and because a crash inside TensorRT must
not take the command with it. The job is what `dvmsr.export.trt.run` writes. On stdout goes a
JSON object per line; everything that the libraries print goes to stderr.
"""

from __future__ import annotations

import errno
import importlib
import json
import logging
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

RTX = "tensorrt_rtx_bindings"
"""The package of TensorRT for RTX; polygraphy knows it by the name of its meta-package."""
_CHATTER = (
    "'colored' module",  # polygraphy would like to be colourful
    "has Int64 binding",  # what TensorRT's parser reminds of inputs and outputs of that type
)
"""In messages that tell nothing."""


def main(job: dict[str, Any], report: Reporter) -> None:
    """Parse the model, build the plan, write it and report what it is."""
    rtx = job["target"] == "rtx"
    if rtx:
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
        sys.modules["tensorrt_rtx"] = importlib.import_module(RTX)
    trt = sys.modules["tensorrt_rtx"] if rtx else importlib.import_module("tensorrt")
    from polygraphy.logger import G_LOGGER

    G_LOGGER.use_python_logging_system = True
    G_LOGGER.module_severity = G_LOGGER.WARNING
    logging.getLogger("Polygraphy").addHandler(report)
    logging.getLogger("Polygraphy").propagate = False
    from polygraphy.backend import trt as polygraphy_trt
    from polygraphy.exception import PolygraphyException

    report.send("tensorrt", version=trt.__version__)
    registry = trt.get_plugin_registry()
    try:
        library = registry.load_library(job["plugin"]) if job["plugin"] else None
        if job["plugin"] and library is None:
            report.send("unloadable")
            return
        facts = _build(trt, polygraphy_trt, job, report)
        if job["inspect"]:
            if job["embed_plugin"]:
                # TensorRT refuses a plan whose plugins are registered already. Whatever was made
                # with the library is gone by now.
                registry.deregister_library(library)
            report.send("inspected", layers=_inspect(trt, polygraphy_trt, job))
    except (PolygraphyException, _Refused) as error:
        report.send("failed", reason=str(error))
        return
    report.send("built", **facts)


def _build(trt: Any, polygraphy_trt: Any, job: dict[str, Any], report: Reporter) -> dict[str, Any]:
    """Write the plan; how many seconds that took, and the largest resident memory in bytes."""
    model = Path(job["model"]).read_bytes()
    network = polygraphy_trt.network_from_onnx_bytes(model, strongly_typed=True)
    _check_inputs(network[1])
    report.send("network", layers=_layers(trt, network[1]))
    config = _config(trt, polygraphy_trt, job, report, network)
    started = time.monotonic()
    plan = polygraphy_trt.engine_bytes_from_network(
        network, config=config, save_timing_cache=job["timing_cache"]
    )
    seconds = time.monotonic() - started
    Path(job["plan"]).write_bytes(plan)
    return {
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }


class Reporter(logging.Handler):
    """Sends objects to the parent; as a handler of log records, those of TensorRT too."""

    def __init__(self) -> None:
        super().__init__()
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # whatever else prints

    def send(self, event: str, **values: Any) -> None:
        self._out.write(json.dumps({"event": event, **values}) + "\n")

    def emit(self, record: logging.LogRecord) -> None:
        kind = "error" if record.levelno >= logging.ERROR else "warning"
        text = re.sub(r"^\[.\] ", "", record.getMessage().strip())
        if not any(part in text for part in _CHATTER):
            self.send(kind, text=text)


def _config(
    trt: Any, polygraphy_trt: Any, job: dict[str, Any], report: Reporter, network: Any
) -> Any:
    """The builder's configuration."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            report.send("phase", name=phase_name, parent=parent_phase, steps=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            report.send("step", name=phase_name, step=step)
            return True

        def phase_finish(self, phase_name: str) -> None:
            report.send("finish", name=phase_name)

    profile = polygraphy_trt.Profile()
    for name, shapes in job["profiles"].items():
        profile.add(name, **shapes)
    options: dict[str, Any] = {
        "profiles": [profile],
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "progress_monitor": Monitor(),
        "version_compatible": job["version_compatible"],
    }
    if job["timing_cache"] and Path(job["timing_cache"]).exists():
        options["load_timing_cache"] = job["timing_cache"]
    if job["workspace_mib"] is not None:
        pool = trt.MemoryPoolType.WORKSPACE
        options["memory_pool_limits"] = {pool: job["workspace_mib"] << 20}
    if job["target"] == "rtx":
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        capabilities = [tuple(map(int, text.split("."))) for text in job["compute_capabilities"]]
        config = CreateConfigRTX(compute_capabilities=capabilities, **options)(*network[:2])
    else:
        config = polygraphy_trt.create_config(*network[:2], **options)
    config.clear_flag(trt.BuilderFlag.TF32)  # FP32 means FP32
    if job["embed_plugin"]:
        config.plugins_to_serialize = [job["plugin"]]
    return config


class _Refused(Exception):
    """A network that TensorRT would parse, but not build as it is asked to."""


def _check_inputs(network: Any) -> None:
    """Of inputs that are sizes, TensorRT wants the range of their values, not of their shapes."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    sizes = [tensor.name for tensor in inputs if tensor.is_shape_tensor]
    if sizes:
        raise _Refused(
            f"the shapes of its tensors depend on the values of the input {', '.join(sizes)}; make "
            "that a constant and export it again"
        )


def _layers(trt: Any, network: Any) -> list[dict[str, str]]:
    """Name, kind and type of the first output of every layer that has one."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return [
        {"name": layer.name, "kind": layer.type.name, "type": layer.get_output(0).dtype.name}
        for layer in layers
        if layer.num_outputs
    ]


def _inspect(trt: Any, polygraphy_trt: Any, job: dict[str, Any]) -> list[Any]:
    """What the engine's inspector tells of its layers at the profiles' optimum; needs the GPU."""
    engine = polygraphy_trt.engine_from_bytes(Path(job["plan"]).read_bytes())
    context = engine.create_execution_context()
    for name, shapes in job["profiles"].items():
        context.set_input_shape(name, tuple(shapes["opt"]))
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    layers: list[Any] = json.loads(text)["Layers"]
    return layers


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    reporter = Reporter()
    try:
        main(json.loads(Path(sys.argv[1]).read_bytes()), reporter)
    except ImportError as error:
        reporter.send("missing", reason=str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, None):
            raise
        # Without a number it comes from the dynamic linker.
        reporter.send("full" if error.errno else "missing", reason=str(error))
