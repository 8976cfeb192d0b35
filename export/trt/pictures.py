"""DVMSR, as a checkpoint or ONNX file, to be built as an engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dvmsr.config import UPSAMPLER_CHANNELS, DVMSRConfig
from dvmsr.errors import UsageError
from dvmsr.export.onnx import export as onnx_export
from dvmsr.export.trt import parity
from dvmsr.export.trt.model import LARGEST_TENSOR, load
from dvmsr.export.trt.request import Request
from dvmsr.export.trt.run import written
from dvmsr.export.trt.source import Profiles, Say, Source
from dvmsr.runtime.backends.onnxrt.onnx_file import OnnxHeader
from dvmsr.runtime.backends.trt.engine_info import CONFIG
from dvmsr.runtime.backends.trt.profiles import InputProfile, Profile, Shape, in_words
from dvmsr.utils import signals
from dvmsr.weights.registry import CHECKPOINTS

if TYPE_CHECKING:
    import onnx

BF16_OPSET = 22
"""The first in which all operators of the graph take bfloat16."""
DEFAULT_PROFILE = Profile((1, 16, 16), (1, 256, 256), (1, 1024, 1024))


class PictureSource(Source):
    """A checkpoint, which is exported in memory, or a file of `dvmsr-export onnx`.

    Args:
        header: of the ONNX file; None for a checkpoint.

    Raises:
        UsageError: if the file is none that engines are built of, or in another precision than was
            asked for.
    """

    def __init__(self, request: Request, path: Path, header: OnnxHeader | None) -> None:
        self.path, self._request = path, request
        self.precision = request.precision or "fp32"
        _pictures(request)
        if header is None:
            return
        self.precision = header.precision
        if header.streaming:
            raise UsageError(
                f"{path} takes strips of rows, which engines do not; name its checkpoint, or "
                "export it without --streaming"
            )
        if request.plugin and not header.has_operators:
            raise UsageError(
                f"{path} has its operators written out, which leaves the plugin nothing to do; "
                "name a file that was exported without --inline, or add --no-plugin"
            )
        if request.precision not in (None, self.precision):
            raise UsageError(
                f"{path} computes in {self.precision}; name its checkpoint, or leave out "
                f"--{request.precision}"
            )

    def exported(self) -> onnx.ModelProto:
        if not self._is_checkpoint:
            return load(self.path)
        from dvmsr.runtime.backends.onnxrt import composed

        opset = BF16_OPSET if self.precision == "bf16" else onnx_export.DEFAULT_OPSET
        model, _ = onnx_export.make_model(self.path, self.precision, opset)
        composed.inline(model)
        return model

    def profiles(self, model: onnx.ModelProto, say: Say) -> dict[str, InputProfile]:
        pictures = profile(self._request, _static_shape(model))
        _check_largest_tensor(self.path, model, pictures)
        return pictures.inputs()

    def products(self, model: onnx.ModelProto) -> tuple[str, ...] | None:
        if self._request.plugin:
            return None  # the operators' bodies, whose arithmetic is FP32, are not in the graph
        return tuple(node.name for node in model.graph.node if node.op_type in ("Conv", "MatMul"))

    def check_finite(self, model: onnx.ModelProto, profiles: Profiles, say: Say) -> None:
        if self._is_checkpoint and self.precision == "bf16":  # no processor computes in it
            model, _ = onnx_export.make_model(self.path, "fp32")
        with signals.temporary_folder() as folder:
            file = written(folder / "model.onnx", model.SerializeToString())
            parity.check_finite(file, self.path, Profile.of(profiles), say)

    def check(self, engine: Path, profiles: Profiles, say: Say) -> None:
        parity.check(engine, self.path, Profile.of(profiles), say)

    @property
    def _is_checkpoint(self) -> bool:
        return self.path.suffix.lower() in CHECKPOINTS


def profile(request: Request, static_shape: Shape | None) -> Profile:
    """What is not given follows from what is, else from `DEFAULT_PROFILE`.

    Args:
        static_shape: the only one that the model takes, if so.

    Raises:
        UsageError: if the sizes make no sense.
    """
    if static_shape:
        if request.sizes or request.batch:
            raise UsageError(
                f"{request.model} takes {in_words(static_shape)} alone; leave out "
                "--min, --opt, --max and --batch, or export it without --static"
            )
        return Profile(static_shape, static_shape, static_shape)
    default = DEFAULT_PROFILE
    given = _pictures(request)
    low = given.get("--min") or _least([*given.values(), default.min[1:]])
    high = given.get("--max") or _greatest([*given.values(), default.max[1:]])
    opt = given.get("--opt") or _least([high, _greatest([low, default.opt[1:]])])
    batch = request.batch or (default.min[0], default.opt[0], default.max[0])
    return Profile((batch[0], *low), (batch[1], *opt), (batch[2], *high))


def _pictures(request: Request) -> dict[str, tuple[int, int]]:
    """Height and width that were asked for, by option."""
    found = {}
    for option, sizes in request.sizes.items():
        if isinstance(sizes, Mapping) or len(sizes) != 2:
            raise UsageError(
                f"{option} takes HEIGHTxWIDTH, such as 270x480, for {request.model}; whole shapes "
                "are for networks of others"
            )
        found[option] = (sizes[0], sizes[1])
    return found


def _static_shape(model: onnx.ModelProto) -> Shape | None:
    """The only input that the model takes; None if it takes any, or none of that kind."""
    shapes = [value.type.tensor_type.shape.dim for value in model.graph.input]
    if [len(shape) for shape in shapes] != [4]:
        return None
    batch, _, height, width = shapes[0]
    sizes = tuple(dimension.dim_value for dimension in (batch, height, width))
    return (sizes[0], sizes[1], sizes[2]) if all(sizes) else None


def _check_largest_tensor(path: Path, model: onnx.ModelProto, profile: Profile) -> None:
    """Whether TensorRT takes the network's tensors at the profile's maximum."""
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    config = DVMSRConfig.from_json(metadata[CONFIG])
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
