"""Checkpoint or ONNX file -> TensorRT engine."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import math
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dvmsr
from dvmsr.config import UPSAMPLER_CHANNELS, DVMSRConfig
from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, UsageError
from dvmsr.export.onnx import export as onnx_export
from dvmsr.export.plugin import build as plugin_build
from dvmsr.export.trt import layers as engine_layers
from dvmsr.export.trt import parity as engine_parity
from dvmsr.export.trt.progress import BuildDisplay
from dvmsr.kernels import driver
from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN, read_header
from dvmsr.runtime.backends.trt import engine_file, plugin_library, version
from dvmsr.runtime.backends.trt.engine_file import TARGETS, EngineInfo, PluginInfo, Profile, Shape
from dvmsr.utils import child_python, signals
from dvmsr.utils.console import notice
from dvmsr.utils.paths import exists
from dvmsr.weights.registry import (
    BUNDLED_CHECKPOINTS,
    CHECKPOINTS,
    ENGINE,
    find_checkpoint,
    find_model,
)

if TYPE_CHECKING:
    import onnx

RTX_VERSION = "1.7.1"
"""Of TensorRT for RTX: how it finds plugins is undocumented, and was tried with this one."""
RTX_CAPABILITIES = ("8.6", "8.9", "12.0")
"""GeForce RTX 30, 40 and 50."""
RTX_SUPPORTED = ("7.5", "8.0", *RTX_CAPABILITIES, "12.1")
RTX_PLUGIN_MAJOR = 10
"""TensorRT for RTX takes the plugin that is compiled for this TensorRT."""
BF16_OPSET = 22
"""The first in which all operators of the graph take bfloat16."""
OLDEST = {"fp16": "7.5", "bf16": "8.0"}
"""The first compute capability with Tensor cores for a type, of those that TensorRT supports."""
DEFAULT_PROFILE = Profile((1, 16, 16), (1, 256, 256), (1, 1024, 1024))

LARGEST_TENSOR = 2**31 - 1
"""Values that a tensor of TensorRT's may have."""

_INSTALL = {"gpu": 'pip install "dvmsr[gpu]"', "rtx": 'pip install "dvmsr[rtx]"'}


@dataclass(frozen=True)
class Request:
    """What engine to build; see `dvmsr-export trt --help`."""

    model: Path
    """The name of a bundled model, a checkpoint or an exported ONNX file."""
    output: Path | None = None
    """By default the model's name with the precision, in the current folder."""
    precision: str | None = None
    """By default the ONNX file's, and `fp32` for a checkpoint."""
    min: tuple[int, int] | None = None
    """Height and width, as of `opt` and `max`."""
    opt: tuple[int, int] | None = None
    max: tuple[int, int] | None = None
    batch: Shape | None = None
    """The smallest, usual and largest batch."""
    target: str = "gpu"
    compute_capabilities: tuple[str, ...] = ()
    """For the target `rtx`; by default those of `RTX_CAPABILITIES`."""
    plugin: bool = True
    """False: the operators run as their ONNX bodies."""
    embed_plugin: bool = False
    version_compatible: bool = False
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    overwrite: bool = False
    """Build even if the engine is there and up to date, and replace any other."""

    def command(self, path: Path, output: Path) -> tuple[str, ...]:
        """What builds the engine `output` of the model `path` again, from any folder."""
        sizes = {"--min": self.min, "--opt": self.opt, "--max": self.max}
        values: dict[str, object] = {
            **{name: f"{size[0]}x{size[1]}" for name, size in sizes.items() if size},
            "--batch": ",".join(map(str, self.batch)) if self.batch else None,
            "--target": self.target if self.target != "gpu" else None,
            "--workspace": self.workspace_mib,
            "--timing-cache": self.timing_cache.absolute() if self.timing_cache else None,
        }
        flags = {
            f"--{self.precision}": self.precision,
            "--no-plugin": not self.plugin,
            "--embed-plugin": self.embed_plugin,
            "--version-compatible": self.version_compatible,
        }
        words = ["dvmsr-export", "trt", str(path.absolute())]
        words += [name for name, wanted in flags.items() if wanted]
        for name, value in values.items():
            words += [name, str(value)] if value is not None else []
        for capability in self.compute_capabilities:
            words += ["--compute-capability", capability]
        return (*words, "-o", str(output.absolute()), "--overwrite")


@dataclass(frozen=True)
class BuildReport:
    """The engine, and what building it took."""

    path: Path
    info: EngineInfo
    built: bool
    """False: it was there already, from equal inputs."""
    peak_bytes: int | None
    """Largest resident memory of the building process."""

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return {
            "path": str(self.path),
            "built": self.built,
            "peak_bytes": self.peak_bytes,
            **asdict(self.info),
        }


@dataclass(frozen=True)
class _Model:
    """An ONNX model as TensorRT gets it: without operator bodies, or with the bodies inlined."""

    data: bytes
    plugin_layers: int
    products: tuple[str, ...] | None
    """As of `engine_layers.Expected`."""
    metadata: dict[str, str]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def build(request: Request, progress: Callable[[str], None] = notice) -> BuildReport:
    """Build an engine and write it with its description, unless it is there already.

    Raises:
        UsageError: if options contradict each other or the model, or another file is in the way.
        MissingComponentError: if TensorRT, a GPU or what compiles the plugin is missing.
        IncompatibleModelError: if the model is not this network, or TensorRT cannot parse it.
        ParityError: if the engine, run on the GPU, differs from the model.
        DvmsrError: if building fails, or the engine would not be what was asked for.
    """
    _check_options(request)
    if request.embed_plugin and request.target == "gpu":
        request = replace(request, version_compatible=True)  # no other engine carries libraries
    path = _find_model(request)
    precision = _precision(request, path)
    tensorrt = _require_tensorrt(request.target)
    device = driver.first()
    capabilities = _capabilities(request, device)
    _check_precision(precision, capabilities)
    output = request.output or _default_output(request, precision)
    if output.suffix != ENGINE:
        raise UsageError(f"{output} must end in {ENGINE}")
    library = None
    if request.plugin:
        major = int(tensorrt.partition(".")[0]) if request.target == "gpu" else RTX_PLUGIN_MAJOR
        library = plugin_build.ensure(major, capabilities, _plugin_of(request, output))
    on = device.name if device and request.target == "gpu" else None
    key = _key(request, path, precision, capabilities, tensorrt, library, on)
    ready = None if request.overwrite else _up_to_date(output, key)
    if ready:
        progress(f"{output} is up to date")
        return BuildReport(output, ready, False, None)
    engine_file.check_targets(output, request.overwrite)
    exported = _exported(path, precision)
    profile = _profile(request, _static_shape(exported))
    _check_largest_tensor(path, exported, profile)
    with signals.temporary_folder() as folder:
        computable = _written(folder / "model.onnx", _for_processor(exported, path, precision))
        engine_parity.check_finite(computable, path, profile, progress)
    model = _for_tensorrt(exported, request.plugin)
    if not request.plugin:
        progress(
            "warning: without the plugin every layer scans its tokens in a loop of TensorRT's, "
            "which is many times slower"
        )
    where = f"on {on}" if on else f"for compute capability {', '.join(capabilities)}"
    progress(f"building with {TARGETS[request.target]} {tensorrt} {where}; this can take minutes")
    plan, built = _run(request, model, profile, capabilities, library, bool(on))
    expected = engine_layers.Expected(precision, model.plugin_layers, model.products)
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
        profile=profile,
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
            engine_parity.check(unproven, path, profile, progress)
    engine_file.write_engine(output, plan, info, request.overwrite)
    return BuildReport(output, info, True, built["peak_bytes"])


def _check_options(request: Request) -> None:
    if request.target not in TARGETS:
        raise UsageError(f"--target must be {' or '.join(TARGETS)}, not {request.target!r}")
    if request.target == "gpu" and request.compute_capabilities:
        raise UsageError("--compute-capability goes with --target rtx")
    if request.target == "rtx" and (request.timing_cache or request.version_compatible):
        raise UsageError("TensorRT for RTX has no use for --timing-cache and --version-compatible")
    if request.embed_plugin and not request.plugin:
        raise UsageError("--embed-plugin and --no-plugin contradict each other")
    for capability in request.compute_capabilities:
        if capability not in RTX_SUPPORTED:
            raise UsageError(
                f"TensorRT for RTX has no compute capability {capability}; "
                f"it has {', '.join(RTX_SUPPORTED)}"
            )
    if request.timing_cache and not request.timing_cache.parent.is_dir():
        raise UsageError(f"{request.timing_cache.parent} is not a folder; create it")


def _require_tensorrt(target: str) -> str:
    """The version of the library."""
    found = version.installed_version(target)
    missing = [name for name in ("polygraphy", "onnx") if importlib.util.find_spec(name) is None]
    if found is None or missing:
        what = TARGETS[target] if found is None else " and ".join(missing)
        other = ""
        if target == "gpu" and found is None:
            other = f", or build for RTX cards: {_INSTALL['rtx']} and add --target rtx"
        raise MissingComponentError(f"{what} is not installed; {_INSTALL[target]}{other}")
    if target == "rtx" and not found.startswith(f"{RTX_VERSION}."):
        raise MissingComponentError(
            f"TensorRT for RTX {found} is installed, but plugins are known to work with "
            f"{RTX_VERSION} alone; {_INSTALL['rtx']}"
        )
    return found


def _capabilities(request: Request, device: driver.Gpu | None) -> tuple[str, ...]:
    """Of the GPUs that the engine is for."""
    if request.target == "rtx":
        return tuple(dict.fromkeys(request.compute_capabilities)) or RTX_CAPABILITIES
    if device is None:
        raise MissingComponentError(
            "TensorRT builds on the GPU that the engine is for, and there is none that CUDA can "
            "use; go to a machine with one, or build for RTX cards with --target rtx"
        )
    return (device.compute_capability,)


def _check_precision(precision: str, capabilities: tuple[str, ...]) -> None:
    oldest = OLDEST.get(precision, "0.0")
    for capability in capabilities:
        if tuple(map(int, capability.split("."))) < tuple(map(int, oldest.split("."))):
            raise UsageError(
                f"compute capability {capability} has no {precision}, which begins with {oldest}; "
                "choose another precision"
            )


def _find_model(request: Request) -> Path:
    """The file of the model; of a bundled one its weights where those that are exported are in
    another precision."""
    name = str(request.model)
    if name in BUNDLED_CHECKPOINTS and request.precision not in (None, "fp32"):
        return find_checkpoint(name)
    return find_model(name)


def _precision(request: Request, path: Path) -> str:
    """What was asked for, which an ONNX file must be already."""
    if path.suffix.lower() in CHECKPOINTS:
        return request.precision or "fp32"
    header = read_header(path)
    precision = header.precision
    if header.streaming:
        raise UsageError(
            f"{path} takes strips of rows, which engines do not; name its checkpoint, or export it "
            "without --streaming"
        )
    if request.plugin and not header.has_operators:
        raise UsageError(
            f"{path} has its operators written out, which leaves the plugin nothing to do; name a "
            "file that was exported without --inline, or add --no-plugin"
        )
    if request.precision not in (None, precision):
        raise UsageError(
            f"{path} computes in {precision}; name its checkpoint, or leave out "
            f"--{request.precision}"
        )
    return precision


def _exported(path: Path, precision: str) -> onnx.ModelProto:
    """The ONNX model with its functions, whatever it is read from."""
    import onnx

    if path.suffix.lower() in CHECKPOINTS:
        opset = BF16_OPSET if precision == "bf16" else onnx_export.DEFAULT_OPSET
        return onnx_export.make_model(path, precision, opset)[0]
    try:
        return onnx.load(path)
    except Exception as error:  # protocol buffers' own
        raise IncompatibleModelError(f"{path} is damaged ({error}); export it again") from None


def _for_processor(exported: onnx.ModelProto, path: Path, precision: str) -> bytes:
    """The model as ONNX Runtime computes it on a processor: bfloat16, in range alike, as FP32."""
    if precision == "bf16" and path.suffix.lower() in CHECKPOINTS:
        exported, _ = onnx_export.make_model(path, "fp32")
    return exported.SerializeToString()


def _for_tensorrt(model: onnx.ModelProto, plugin: bool) -> _Model:
    """The model as TensorRT gets it; it is changed."""
    import onnx.inliner

    from dvmsr.export.onnx import bodies
    from dvmsr.export.onnx.forms import write_out_layouts

    metadata = {prop.key: prop.value for prop in model.metadata_props}
    custom = sum(node.domain == DOMAIN for node in model.graph.node)
    products = tuple(node.name for node in model.graph.node if node.op_type in ("Conv", "MatMul"))
    bodies.detach(model)
    write_out_layouts(model.graph)
    if not plugin:
        bodies.attach(model)
        model, custom = onnx.inliner.inline_local_functions(model), 0
    return _Model(
        data=model.SerializeToString(deterministic=True),
        plugin_layers=custom,
        products=None if plugin else products,
        metadata=metadata,
    )


def _static_shape(model: onnx.ModelProto) -> Shape | None:
    """The only input that the model takes; None if it takes any, or none of that kind."""
    shapes = [value.type.tensor_type.shape.dim for value in model.graph.input]
    if [len(shape) for shape in shapes] != [4]:
        return None
    batch, _, height, width = shapes[0]
    sizes = tuple(dimension.dim_value for dimension in (batch, height, width))
    return (sizes[0], sizes[1], sizes[2]) if all(sizes) else None


def _profile(request: Request, static_shape: Shape | None) -> Profile:
    """What is not given follows from what is, else from `DEFAULT_PROFILE`."""
    given = (request.min, request.opt, request.max, request.batch)
    if static_shape:
        if any(given):
            raise UsageError(
                f"{request.model} takes {'x'.join(map(str, static_shape))} alone; leave out "
                "--min, --opt, --max and --batch, or export it without --static"
            )
        return Profile(static_shape, static_shape, static_shape)
    default = DEFAULT_PROFILE
    fixed = [size for size in (request.min, request.opt, request.max) if size]
    low = request.min or _least([*fixed, default.min[1:]])
    high = request.max or _greatest([*fixed, default.max[1:]])
    opt = request.opt or _least([high, _greatest([low, default.opt[1:]])])
    batch = request.batch or (default.min[0], default.opt[0], default.max[0])
    return Profile((batch[0], *low), (batch[1], *opt), (batch[2], *high))


def _check_largest_tensor(path: Path, model: onnx.ModelProto, profile: Profile) -> None:
    """Whether TensorRT takes the network's tensors at the profile's maximum."""
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    config = DVMSRConfig.from_json(metadata["dvmsr.config"])
    values = values_per_pixel(config) * math.prod(profile.max)
    if values > LARGEST_TENSOR:
        batch, height, width = profile.max
        pixels = LARGEST_TENSOR // values_per_pixel(config)
        raise UsageError(
            f"{path} at {height}x{width} (batch {batch}) has tensors of {values:,} values, and "
            f"TensorRT takes {LARGEST_TENSOR:,}; choose --max and --batch of at most {pixels:,} "
            "pixels in all"
        )


def values_per_pixel(config: DVMSRConfig) -> int:
    """How many values per pixel of the input the network's largest tensor has."""
    enlarged = UPSAMPLER_CHANNELS if config.upsampler == "pixelshuffle" else 3
    per_token = config.channels, config.inner_channels, config.state, config.dt_rank
    return max(enlarged * config.scale**2, *per_token)


def _least(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    return min(h for h, _ in sizes), min(w for _, w in sizes)


def _greatest(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    return max(h for h, _ in sizes), max(w for _, w in sizes)


def _default_output(request: Request, precision: str) -> Path:
    """`net.engine`, `net.fp16.engine`, `net.fp16.rtx.engine`"""
    stem = request.model.stem.removesuffix(f".{precision}").removesuffix(f"-{precision}")
    parts = [stem, *([precision] if precision != "fp32" else [])]
    parts += ["rtx"] if request.target == "rtx" else []
    return Path(".".join(parts) + ENGINE)


def _plugin_of(request: Request, output: Path) -> str | None:
    """SHA-256 of the plugin of the engine that is there and may be up to date."""
    if request.overwrite:
        return None
    with suppress(DvmsrError):
        plugin = engine_file.read_info(output).plugin
        return plugin.sha256 if plugin else None
    return None


def _plugin_info(library: plugin_library.PluginLibrary, embedded: bool) -> PluginInfo:
    from dvmsr.export.onnx.bodies import ATTRIBUTES

    version = ATTRIBUTES["plugin_version"]
    return PluginInfo(version, library.tensorrt_major, library.sha256, embedded)


def _key(
    request: Request,
    path: Path,
    precision: str,
    capabilities: tuple[str, ...],
    tensorrt: str,
    library: plugin_library.PluginLibrary | None,
    device: str | None,
) -> str:
    """A hash of everything that decides what engine is built."""
    inputs = {
        "model": plugin_library.sha256(path),
        "dvmsr": [dvmsr.__version__, onnx_export.git_revision()],
        "precision": precision,
        "profile": [request.min, request.opt, request.max, request.batch],
        "target": request.target,
        "tensorrt": tensorrt,
        "gpu": device,
        "compute_capabilities": capabilities,
        "plugin": library.sha256 if library else None,
        "embed_plugin": request.embed_plugin,
        "version_compatible": request.version_compatible,
        "workspace_mib": request.workspace_mib,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _up_to_date(output: Path, key: str) -> EngineInfo | None:
    """The description of an engine that was built from the same; None if there is no engine.

    Raises:
        UsageError: if it was built from anything else, is damaged or has no description.
        DvmsrError: if it cannot be read.
    """
    if not exists(output):
        return None
    described = engine_file.info_path(output)
    try:
        info, _ = engine_file.read_engine(output)
    except IncompatibleModelError:
        what = f"it or {described.name} is damaged or of a newer dvmsr"
        if not exists(described):
            what = f"it has no {described.name} beside it"
        raise UsageError(
            f"{output} exists, but {what}; build it again with --overwrite or choose another name "
            "with -o"
        ) from None
    if info.key == key:
        return info
    raise UsageError(
        f"{output} exists and was built from other inputs; replace it with --overwrite or choose "
        "another name with -o"
    )


def _run(
    request: Request,
    model: _Model,
    profile: Profile,
    capabilities: tuple[str, ...],
    library: plugin_library.PluginLibrary | None,
    inspect: bool,
) -> tuple[bytes, dict[str, Any]]:
    """Build in a process of its own; the plan, and what the process said of it."""
    with signals.temporary_folder() as folder:
        job = {
            "target": request.target,
            "model": str(folder / "model.onnx"),
            "plan": str(folder / "plan"),
            "plugin": library.pure if library else None,
            "profile": [profile.min, profile.opt, profile.max],
            "compute_capabilities": capabilities,
            "embed_plugin": request.embed_plugin,
            "version_compatible": request.version_compatible,
            "workspace_mib": request.workspace_mib,
            "timing_cache": str(request.timing_cache) if request.timing_cache else None,
            "inspect": inspect,
        }
        _written(folder / "model.onnx", model.data)
        _written(folder / "job.json", json.dumps(job).encode())
        environment = dict(os.environ)
        if request.target == "rtx":
            link_rtx(folder)
            paths = [str(folder), environment.get("LD_LIBRARY_PATH", "")]
            environment["LD_LIBRARY_PATH"] = ":".join(filter(None, paths))
        said = _listen(folder, environment)
        if "unloadable" in said:
            assert library is not None
            raise MissingComponentError(
                f"{library.pure} cannot be loaded by {TARGETS[request.target]}; build another "
                "with `dvmsr-export plugin-path --build`"
            )
        return (folder / "plan").read_bytes(), said


def _written(path: Path, data: bytes) -> Path:
    """A file in a temporary folder."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise (_full(path.parent) if error.errno == errno.ENOSPC else error) from None
    return path


def link_rtx(folder: Path) -> None:
    """The plugin registry of TensorRT for RTX looks for the library under its bare name."""
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    if spec is None or spec.origin is None:
        raise MissingComponentError(
            f"the library of TensorRT for RTX is not installed; {_INSTALL['rtx']}"
        )
    library = Path(spec.origin).with_name("libtensorrt_rtx.so.1")
    (folder / "libtensorrt_rtx.so").symlink_to(library)


def _full(folder: Path) -> DvmsrError:
    return DvmsrError(
        f"{folder.parent} has no space left for building; make room, or set TMPDIR to another "
        "folder"
    )


def _listen(folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run the worker to its end, show its progress, and gather what it says.

    Raises:
        DvmsrError: if it fails, with TensorRT's or the plugin's first error, or the disk is full.
        MissingComponentError: if a library that it needs does not load.
    """
    command = child_python.command("dvmsr.export.trt.worker", str(folder / "job.json"))
    said: dict[str, Any] = {"inspected": None}
    errors: list[str] = []
    warnings: list[str] = []
    with (
        (folder / "messages").open("w") as messages,
        BuildDisplay() as display,
        signals.child(command, stdout=subprocess.PIPE, stderr=messages, env=environment) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            event = json.loads(line)
            kind = event.pop("event")
            if kind in ("phase", "step", "finish"):
                display.show({"event": kind, **event})
            elif kind == "error":
                errors.append(event["text"])
            elif kind == "warning":
                warnings.append(event["text"])
            elif kind == "tensorrt":
                said["tensorrt"] = event["version"]
            elif kind == "inspected":
                said["inspected"] = event["layers"]
            elif kind in ("full", "missing"):
                said[kind] = (event["reason"].splitlines() or ["it gave no reason"])[0]
            elif kind == "failed":
                errors.append(event["reason"])
            elif kind == "unloadable":
                said["unloadable"] = True
            else:
                said.update(event)
    signals.check()
    printed = (folder / "messages").read_text(errors="replace").splitlines()
    if process.returncode == 0 and ("seconds" in said or "unloadable" in said):
        for text in dict.fromkeys(warnings):
            notice(f"TensorRT: {text}")
        return said
    for text in [*printed, *dict.fromkeys([*warnings, *errors])]:
        notice(f"TensorRT: {text}")
    if "full" in said:
        raise _full(folder)
    if "missing" in said:
        raise MissingComponentError(
            f"TensorRT or a library that it needs does not load ({said['missing']}); "
            f"reinstall it, {' or '.join(_INSTALL.values())}"
        )
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise DvmsrError(f"TensorRT crashed ({name}); its messages are above")
    telling = [text for text in [*printed, *errors] if text.startswith(("dvmsr ", "In node "))]
    reason = [*telling, *errors, *printed[-1:], "it gave no reason"][0].splitlines()[0]
    kind = DvmsrError if "layers" in said else IncompatibleModelError
    raise kind(f"TensorRT could not build the engine ({reason})")
