"""Checkpoint or ONNX file -> TensorRT engine."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import dvmsr
from dvmsr.errors import UsageError
from dvmsr.export.plugin import build as plugin_build
from dvmsr.export.trt import layers as engine_layers
from dvmsr.export.trt import reuse, target
from dvmsr.export.trt.model import for_tensorrt
from dvmsr.export.trt.network import NetworkSource
from dvmsr.export.trt.pictures import PictureSource
from dvmsr.export.trt.request import BuildReport, Request
from dvmsr.export.trt.run import run
from dvmsr.export.trt.source import Say, Source
from dvmsr.kernels import driver
from dvmsr.runtime.backends.onnxrt.onnx_file import ATTRIBUTES, ForeignFileError, read_header
from dvmsr.runtime.backends.trt import engine_file
from dvmsr.runtime.backends.trt.engine_info import TARGETS, EngineInfo, PluginInfo
from dvmsr.runtime.backends.trt.plugin_library import PluginLibrary
from dvmsr.utils import signals
from dvmsr.utils.console import notice
from dvmsr.utils.paths import is_import_path
from dvmsr.weights.registry import (
    CHECKPOINT_NAMES,
    CHECKPOINTS,
    ENGINE,
    find_checkpoint,
    find_model,
)


def build(request: Request, progress: Say = notice) -> BuildReport:
    """Build an engine and write it with its description, unless it is there already.

    Raises:
        UsageError: if options contradict each other or the model, or another file is in the way.
        MissingComponentError: if TensorRT, a GPU or what compiles the plugin is missing.
        IncompatibleModelError: if the model cannot be used, or TensorRT cannot parse it.
        ParityError: if the engine, run on the GPU, differs from the model.
        DvmsrError: if building fails, or the engine would not be what was asked for.
    """
    request.check()
    if request.embed_plugin and request.target == "gpu":
        request = replace(request, version_compatible=True)  # no other engine carries libraries
    source = open_source(request)
    path, precision = source.path, source.precision
    tensorrt = target.require_tensorrt(request.target)
    device = driver.first()
    capabilities = target.capabilities(request.target, request.compute_capabilities, device)
    target.check_precision(precision, capabilities)
    output = request.output or _default_output(request, precision)
    if output.suffix != ENGINE:
        raise UsageError(f"{output} must end in {ENGINE}")
    library = None
    if request.plugin:
        major = target.plugin_major(request.target, tensorrt)
        library = plugin_build.ensure(major, capabilities, reuse.plugin_of(request, output))
    on = device.name if device and request.target == "gpu" else None
    key = reuse.key(request, path, precision, capabilities, tensorrt, library, on)
    ready = None if request.overwrite else reuse.up_to_date(output, key)
    if ready:
        progress(f"{output} is up to date")
        return BuildReport(output, ready, False, None)
    engine_file.check_targets(output, request.overwrite)
    exported = source.exported()
    profiles = source.profiles(exported, progress)
    source.check_finite(exported, profiles, progress)
    products = source.products(exported)
    model = for_tensorrt(exported, request.plugin)
    if model.operators and not request.plugin:
        progress(
            "warning: without the plugin every layer scans its tokens in a loop of TensorRT's, "
            "which is many times slower"
        )
    where = f"on {on}" if on else f"for compute capability {', '.join(capabilities)}"
    progress(f"building with {TARGETS[request.target]} {tensorrt} {where}; this can take minutes")
    computed = {name: profiles[name] for name in model.inputs}
    plan, built = run(request, model.data, computed, capabilities, library, bool(on))
    expected = engine_layers.Expected(precision, model.plugin_layers, products)
    engine_layers.check_network(built["layers"], expected)
    if built["inspected"] is None:
        layers = engine_layers.count_types(built["layers"])
    else:
        layers = engine_layers.check_engine(built["inspected"], expected)
        unjudged = engine_layers.unjudged(built["inspected"], expected)
        if unjudged:
            progress(
                f"warning: TensorRT does not tell whether {', '.join(unjudged[:3])} "
                f"({len(unjudged)} in all) compute in {precision}"
            )
    info = EngineInfo(
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        target=request.target,
        tensorrt=built["tensorrt"],
        version_compatible=request.version_compatible,
        gpu=on,
        compute_capabilities=capabilities,
        precision=precision,
        profiles=profiles,
        plugin=_plugin_info(library, request.embed_plugin) if library else None,
        plugin_layers=model.plugin_layers,
        layers=layers,
        onnx_sha256=model.sha256,
        model=model.metadata,
        build_seconds=round(built["seconds"], 3),
        key=key,
        command=request.command(path, output),
        dvmsr=dvmsr.__version__,
    )
    if on:
        with signals.temporary_folder() as folder:
            unproven = folder / output.name
            engine_file.write_engine(unproven, plan, info, overwrite=False)
            source.check(unproven, profiles, progress)
    engine_file.write_engine(output, plan, info, request.overwrite)
    return BuildReport(output, info, True, built["peak_bytes"])


def open_source(request: Request) -> Source:
    """The model that is asked for.

    Raises:
        UsageError: if there is no such file, or it cannot become what is asked for.
        IncompatibleModelError: if it holds no network that engines are built of.
    """
    name = str(request.model)
    if is_import_path(name):
        raise UsageError(
            f"{name} is a network in PyTorch, and engines are built of ONNX files; first "
            f"`dvmsr-export onnx {name}` with --input and --dynamic, then name the file it writes"
        )
    path = _find_model(name, request.precision)
    if path.suffix.lower() == ENGINE:
        raise UsageError(f"{path} is an engine already; name the model that it was built from")
    if path.suffix.lower() in CHECKPOINTS:
        return PictureSource(request, path, None)
    try:
        header = read_header(path)
    except ForeignFileError:
        return NetworkSource(request, path)
    return PictureSource(request, path, header)


def _find_model(name: str, precision: str | None) -> Path:
    """The file of the model; of one by name its weights where those that are exported are in
    another precision."""
    if name in CHECKPOINT_NAMES and precision not in (None, "fp32"):
        return find_checkpoint(name)
    return find_model(name)


def _default_output(request: Request, precision: str) -> Path:
    """`net.engine`, `net.fp16.engine`, `net.fp16.rtx.engine`"""
    stem = request.model.stem.removesuffix(f".{precision}").removesuffix(f"-{precision}")
    parts = [stem, *([precision] if precision != "fp32" else [])]
    parts += ["rtx"] if request.target == "rtx" else []
    return Path(".".join(parts) + ENGINE)


def _plugin_info(library: PluginLibrary, embedded: bool) -> PluginInfo:
    version = ATTRIBUTES["plugin_version"]
    return PluginInfo(version, library.tensorrt_major, library.sha256, embedded)
