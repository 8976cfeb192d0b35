"""Checkpoint -> verified ONNX file."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import math
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dvmsr
from dvmsr.errors import MissingComponentError, ParityError, UsageError
from dvmsr.export.onnx.parity import Parity
from dvmsr.runtime.parity.limits import default_limits
from dvmsr.utils.atomic import check_target, replacing
from dvmsr.utils.console import notice
from dvmsr.utils.paths import check_encodable, exists
from dvmsr.weights.registry import find_checkpoint

if TYPE_CHECKING:
    import onnx

    from dvmsr.config import DVMSRConfig
    from dvmsr.model import DVMSR

PRECISIONS = ("fp32", "fp16")
DEFAULT_OPSET = 18
UNKNOWN = "unknown"


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far it is from PyTorch."""

    path: str
    sha256: str
    bytes: int
    precision: str
    opset: int
    static_shape: tuple[int, int, int] | None
    """Batch, height and width; None for a dynamic model."""
    nodes: dict[str, int]
    """How many nodes of each operator, most frequent first."""
    parity: tuple[Parity, ...]
    """One per backend and input; empty if not verified."""

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values; an infinite PSNR is null."""
        values = asdict(self)
        for parity in values["parity"]:
            parity["psnr"] = parity["psnr"] if math.isfinite(parity["psnr"]) else None
        return values


def export_onnx(
    source: str | os.PathLike[str] | DVMSR,
    path: str | os.PathLike[str],
    precision: str = "fp32",
    opset: int = DEFAULT_OPSET,
    static_shape: tuple[int, int, int] | None = None,
    verify: bool = True,
    overwrite: bool = False,
    progress: Callable[[str], None] = notice,
    streaming: bool = False,
    inline: bool = False,
) -> ExportReport:
    """Write a network as an ONNX file, and compare what ONNX Runtime makes of it with PyTorch.

    The file appears under its name only when it is complete and has passed.

    Args:
        source: a checkpoint, the name of a bundled model, or a network (its weights are read as
            FP32).
        path: the file to write, `.onnx`.
        precision: `fp32`, or `fp16` for a graph typed in half precision.
        opset: of the standard operators, 17 to 24; onnxruntime 1.20 reads up to 21.
        static_shape: batch, height and width of the only input that the model will take; by
            default it takes any.
        verify: compare with PyTorch.
        overwrite: replace an existing file.
        progress: receives a line per step; by default they go to stderr.
        streaming: a graph that computes one strip of rows, with what it carries to the next as
            inputs and outputs (`dvmsr.export.onnx.streaming_graph`); compared strip by strip.
        inline: a file without functions, in standard operators alone (`dvmsr.export.onnx.inline`).

    Raises:
        UsageError: for a bad argument, a source that does not exist, or if the file to write
            exists and is not to be replaced.
        MissingComponentError: if torch or onnx is not installed.
        IncompatibleModelError: if the source is no checkpoint of this network, onnxruntime is
            too old for the opset, or the network is to stream and is bidirectional.
        ParityError: if the outputs differ by more than `dvmsr.runtime.parity.limits` allows.
        DvmsrError: if the source cannot be read or the file not be written.
    """
    path = Path(path)
    if isinstance(source, (str, os.PathLike)):
        source = find_checkpoint(source)
    _check_arguments(path, precision, static_shape, overwrite)
    if streaming and static_shape is not None:
        raise UsageError("a streaming model takes strips of any size; leave out the static shape")
    require("torch", "safetensors", "onnx")

    from dvmsr.export.onnx.graph import OPSETS
    from dvmsr.export.onnx.verify import verify as verify_file
    from dvmsr.runtime import memory

    if opset not in OPSETS:
        raise UsageError(f"the opset must be from {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    model, reference = make_model(source, precision, opset, static_shape, streaming, inline)
    if verify and static_shape is not None:
        batch, height, width = static_shape
        name = f"{path} cannot be verified: its input"
        remedy = "make the static shape smaller or add --no-verify"
        memory.check(reference.config, "portable", batch * height, width, name=name, remedy=remedy)
    data = model.SerializeToString()

    parity: list[Parity] = []
    with replacing(path, overwrite) as temporary:
        progress(f"writing {path}: {precision}, opset {opset}, {len(data):,} bytes")
        temporary.write_bytes(data)
        if verify:
            parity = verify_file(temporary, reference, static_shape, progress)
            _check_parity(path, precision, parity)
    return ExportReport(
        path=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        precision=precision,
        opset=opset,
        static_shape=static_shape,
        nodes=count_nodes(model),
        parity=tuple(parity),
    )


def make_model(
    source: str | os.PathLike[str] | DVMSR,
    precision: str,
    opset: int = DEFAULT_OPSET,
    static_shape: tuple[int, int, int] | None = None,
    streaming: bool = False,
    inline: bool = False,
) -> tuple[onnx.ModelProto, DVMSR]:
    """A network's ONNX model, and the network itself: FP32, on the CPU.

    Args and errors as of `export_onnx`; TensorRT takes `bf16`, too.
    """
    require("torch", "safetensors", "onnx")

    import onnx

    from dvmsr import checkpoint
    from dvmsr.export.onnx.graph import build_model
    from dvmsr.export.onnx.inline import without_functions
    from dvmsr.export.onnx.streaming_graph import build_streaming_model
    from dvmsr.model import DVMSR

    if isinstance(source, DVMSR):
        network, name, digest = source, UNKNOWN, UNKNOWN
    else:
        network, name = checkpoint.load(source), Path(source).name
        digest = checkpoint.sha256(source)
    reference = copy.deepcopy(network).cpu().float().eval()
    tensors = {**dict(reference.named_parameters()), **dict(reference.named_buffers())}
    weights = {key: tensor.detach().numpy() for key, tensor in tensors.items()}
    if streaming:
        model = build_streaming_model(network.config, weights, precision, opset)
    else:
        model = build_model(network.config, weights, precision, opset, static_shape)
    if inline:
        model = without_functions(model)
    model.producer_name, model.producer_version = "dvmsr", dvmsr.__version__
    properties = metadata(network.config, precision, name, digest)
    if streaming:
        properties["dvmsr.streaming"] = "true"
    onnx.helper.set_model_props(model, properties)
    return model, reference


def metadata(
    config: DVMSRConfig, precision: str, checkpoint: str, checkpoint_sha256: str
) -> dict[str, str]:
    """The properties that every exported file carries; one that streams says so, too."""
    properties = {
        "config": config.to_json(),
        "scale": str(config.scale),
        "colour_order": "RGB",
        "range": "0..1",
        "checkpoint": checkpoint,
        "checkpoint_sha256": checkpoint_sha256,
        "git_revision": git_revision(),
        "precision": precision,
        "version": dvmsr.__version__,
    }
    return {f"dvmsr.{key}": text for key, text in properties.items()}


def count_nodes(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes of each operator the main graph has, most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


def git_revision() -> str:
    """The commit of the dvmsr source, with `-dirty` if it was changed since; `unknown` if dvmsr
    does not run from a checkout of its own."""
    root = Path(dvmsr.__file__).resolve().parents[1]
    if not exists(root / ".git"):
        return UNKNOWN
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run([*command, "--dirty"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return result.stdout.strip()


def _check_arguments(
    path: Path, precision: str, static_shape: tuple[int, int, int] | None, overwrite: bool
) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"the precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if static_shape is not None and (len(static_shape) != 3 or min(static_shape) < 1):
        raise UsageError(f"a static shape is a batch, height and width, not {static_shape}")
    if path.suffix != ".onnx":
        raise UsageError(f"{path} must end in .onnx")
    check_encodable(Path(os.path.realpath(path)))
    check_target(path, overwrite)


def _check_parity(path: Path, precision: str, results: list[Parity]) -> None:
    for result in results:
        if not result.passes(precision):
            raise ParityError(
                f"{path} was not written: the {precision} model differs from PyTorch, {result}, "
                f"where {default_limits(precision)} is allowed; try another precision or opset"
            )


def require(*packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingComponentError(
            f'exporting needs {" and ".join(missing)}: pip install "dvmsr[export]"'
        )
