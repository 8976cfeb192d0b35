"""TensorRT engines on disk: a plan, and beside it a JSON file that says what the plan is.

`net.engine` is exactly what TensorRT serialised, so that `trtexec --loadEngine`, Triton, DeepStream
and polygraphy take it as it is. `net.engine.json` holds an `EngineInfo`; it names the plan's
SHA-256, so that a plan and a description of different builds are not taken for a pair. Both travel
together. Neither TensorRT nor onnx nor torch is needed to read or to write them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dvmsr.config import DVMSRConfig
from dvmsr.errors import DvmsrError, IncompatibleModelError, UsageError
from dvmsr.utils import rights
from dvmsr.utils.atomic import check_target, replacing
from dvmsr.utils.json_text import parse
from dvmsr.utils.paths import check_input, exists, unreadable

FORMAT = 3
"""Version of the description. 1: the plugin knows the operators in their former form, no groups.
2: of DVMSR alone, whose `profile` has batch, height and width."""
TARGETS = {"gpu": "TensorRT", "rtx": "TensorRT for RTX"}
PRECISIONS = ("fp32", "fp16", "bf16")

CONFIG, NETWORK = "dvmsr.config", "dvmsr.network"
"""Properties, one of which every `EngineInfo.model` has: of DVMSR, and of any other network."""

Shape = tuple[int, int, int]
"""Batch, height and width."""


@dataclass(frozen=True)
class InputProfile:
    """The shapes of one input that an engine takes: any from `min` to `max`, fastest at `opt`.

    Raises:
        ValueError: unless 1 <= min <= opt <= max on each axis.
    """

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        for low, opt, high in zip(self.min, self.opt, self.max, strict=True):
            if not 1 <= low <= opt <= high:
                raise ValueError(f"{low}, {opt}, {high}")

    def contains(self, shape: Sequence[int]) -> bool:
        """Whether an engine takes an input of that shape."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )

    def __str__(self) -> str:
        low, opt, high = map(in_words, (self.min, self.opt, self.max))
        return low if low == high else f"{low} to {high}, tuned for {opt}"


def in_words(shape: Sequence[int | str]) -> str:
    """`1x3x64x64` or `batchx3x64x64`; `one value` for a scalar."""
    return "x".join(map(str, shape)) or "one value"


@dataclass(frozen=True)
class Profile:
    """The pictures that an engine of DVMSR takes: any (B, 3, H, W) from `min` to `max`, fastest at
    `opt`.

    Raises:
        UsageError: unless 1 <= min <= opt <= max in each of batch, height and width.
    """

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        for axis, sizes in zip(
            ("batch", "height", "width"),
            zip(self.min, self.opt, self.max, strict=True),
            strict=True,
        ):
            if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
                raise UsageError(
                    f"the {axis} must be at least 1 and grow from min over opt to max, "
                    f"not {', '.join(map(str, sizes))}"
                )

    def contains(self, shape: Shape) -> bool:
        """Whether an engine takes this batch, height and width."""
        return all(a <= n <= b for a, n, b in zip(self.min, shape, self.max, strict=True))

    @classmethod
    def of(cls, inputs: Mapping[str, InputProfile]) -> Profile:
        """What `inputs` gives as a profile."""
        only = inputs["input"]
        low, opt, high = ((b, h, w) for b, _, h, w in (only.min, only.opt, only.max))
        return cls(low, opt, high)

    def inputs(self) -> dict[str, InputProfile]:
        """The same as `EngineInfo.profiles`."""
        low, opt, high = ((b, 3, h, w) for b, h, w in (self.min, self.opt, self.max))
        return {"input": InputProfile(low, opt, high)}

    def __str__(self) -> str:
        return f"{in_words(self.min)} to {in_words(self.max)} (batch x height x width)"


@dataclass(frozen=True)
class PluginInfo:
    """The plugin library that an engine was built with, and needs to run unless it is embedded."""

    version: str
    """Of the two operators, `plugin_version`."""
    tensorrt_major: int
    """The major version of the headers that it was compiled with."""
    sha256: str
    """Of the library's file."""
    embedded: bool
    """Whether the plan carries the library."""


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is, from what, for whom, and how to build it again."""

    plan_sha256: str
    plan_bytes: int
    target: str
    """`gpu`: TensorRT, for the GPU that it was built on. `rtx`: TensorRT for RTX."""
    tensorrt: str
    """Full version of the library that built it, such as `10.14.1.48`."""
    version_compatible: bool
    """Whether later releases of the same major version of TensorRT run it, too."""
    gpu: str | None
    """Name of the GPU that it was built on; None if it was built without one."""
    compute_capabilities: tuple[str, ...]
    """Of the GPUs that run it, such as `8.9`."""
    precision: str
    """`fp32`, `fp16` or `bf16`: the type of input, output and activations."""
    profiles: dict[str, InputProfile]
    """By the names of the inputs."""
    plugin: PluginInfo | None
    """None: the operators run as their ONNX bodies."""
    plugin_layers: int
    """How many layers of the network are the plugin's."""
    layers: dict[str, int]
    """How many layers compute in which type, as the engine's inspector tells, or the parsed network
    where there was no GPU to inspect the engine on."""
    onnx_sha256: str
    """Of the model that TensorRT parsed, operator bodies stripped if there is a plugin."""
    model: dict[str, str]
    """The ONNX model's properties, `dvmsr.config` and `dvmsr.checkpoint` among those of DVMSR,
    `dvmsr.network` among those of others."""
    build_seconds: float
    key: str
    """Equal for equal inputs of the build."""
    command: tuple[str, ...]
    """What builds it again in its place, from any folder."""
    dvmsr: str
    """Version of dvmsr that built it."""

    @property
    def is_dvmsr(self) -> bool:
        """Whether it holds DVMSR, not a network of others; `config` and `profile` are for it."""
        return CONFIG in self.model

    @property
    def config(self) -> DVMSRConfig:
        """The architecture of DVMSR."""
        return DVMSRConfig.from_json(self.model[CONFIG])

    @property
    def profile(self) -> Profile:
        """The pictures that DVMSR takes."""
        return Profile.of(self.profiles)

    @property
    def rebuild(self) -> str:
        """The command that builds it again, for a shell."""
        return shlex.join(self.command)

    def rebuild_at(self, path: Path, compute_capability: str) -> str:
        """The command that builds it again as `path` for a GPU of that compute capability.

        An engine of TensorRT for RTX stays usable on the GPUs that it is for.
        """
        replaced = ("-o", "--output", "--compute-capability")
        kept: list[str] = []
        words = iter(self.command)
        for word in words:
            if word in replaced:
                next(words, None)
            else:
                kept.append(word)
        if self.target == "rtx":
            for capability in dict.fromkeys((*self.compute_capabilities, compute_capability)):
                kept += ["--compute-capability", capability]
        return shlex.join([*kept, "-o", str(path.absolute())])

    @property
    def host_code(self) -> str | None:
        """What in the plan is code for the processor, which loading it would run; None if nothing
        is."""
        carried = []
        if self.plugin is not None and self.plugin.embedded:
            carried.append("the plugin library")
        if self.version_compatible:
            carried.append("a runtime of TensorRT")
        return " and ".join(carried) or None

    def facts(self) -> dict[str, str]:
        """The engine in words, for `dvmsr info`."""
        plugin = "none, the operators are ONNX bodies"
        if self.plugin:
            where = "embedded" if self.plugin.embedded else "a library of its own"
            plugin = (
                f"version {self.plugin.version} for TensorRT {self.plugin.tensorrt_major}, "
                f"{where}, SHA-256 {self.plugin.sha256}"
            )
        return {
            "precision": self.precision,
            "built by": f"{TARGETS[self.target]} {self.tensorrt}, dvmsr {self.dvmsr}",
            "built on": self.gpu or "a machine whose GPU, if any, was not used",
            "runs on": f"compute capability {', '.join(self.compute_capabilities)}",
            "takes": self._taken(),
            "plugin": plugin,
            "layers": ", ".join(f"{count} {name}" for name, count in sorted(self.layers.items()))
            + f"; {self.plugin_layers} of the plugin",
            "plan": f"{self.plan_bytes:,} bytes, SHA-256 {self.plan_sha256}",
            "onnx_sha256": self.onnx_sha256,
            "build it again": self.rebuild,
        }

    def _taken(self) -> str:
        if self.is_dvmsr:
            return f"{self.profile}, tuned for {in_words(self.profile.opt)}"
        return "; ".join(f"{name} {profile}" for name, profile in self.profiles.items())

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"


def info_path(engine: Path) -> Path:
    """Where the description of an engine lies."""
    return engine.with_name(f"{engine.name}.json")


def check_targets(path: Path, overwrite: bool) -> None:
    """Whether an engine and its description may be written here, as far as that shows beforehand.

    Raises:
        UsageError: if one of the two exists and is not to be replaced, or their folder is missing.
        DvmsrError: if no file can be made in their folder.
    """
    for target in (path, info_path(path)):
        if exists(target) and not overwrite:
            raise UsageError(
                f"{target} exists; replace it with --overwrite or choose another name with -o"
            )
        check_target(target, overwrite)


def write_engine(path: Path, plan: bytes, info: EngineInfo, overwrite: bool) -> None:
    """Write the plan and its description, both or neither; `info` must be about this plan.

    Raises:
        UsageError: if one of the two exists and is not to be replaced.
        DvmsrError: if one of the two cannot be written; then both are as before.
    """
    check_targets(path, overwrite)
    try:
        with _restoring(path) as changed, replacing(info_path(path), overwrite) as description:
            description.write_bytes(info.to_json().encode())
            with replacing(path, overwrite) as temporary:
                temporary.write_bytes(plan)
            changed.append(path)
    except UsageError:
        check_targets(path, overwrite)  # made by another process meanwhile
        raise


@contextmanager
def _restoring(path: Path) -> Iterator[list[Path]]:
    """If the block fails once it has put `path` into the list, the file is as it was before."""
    target = Path(os.path.realpath(path))
    old = target.with_name(f".dvmsr-{secrets.token_hex(8)}.tmp")
    changed: list[Path] = []
    try:
        try:
            if exists(target):
                _link_or_copy(target, old)
        except OSError as error:
            raise DvmsrError(
                f"{path} cannot be kept while it is replaced ({error.strerror}); "
                "choose another name"
            ) from None
        try:
            yield changed
        except BaseException:
            if changed and exists(old):
                old.replace(target)
            elif changed:
                target.unlink()
            raise
    finally:
        with suppress(OSError):
            old.unlink()


def _link_or_copy(source: Path, target: Path) -> None:
    """A second name for the file where the file system has such, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        rights.create_private(target)
        shutil.copyfile(source, target)
        with target.open("rb+") as file:
            rights.take_over(source, file.fileno())


def read_info(path: Path) -> EngineInfo:
    """The description of the engine `path`, checked; the plan itself is not read.

    Raises:
        UsageError: if there is no such engine.
        DvmsrError: if the description cannot be read.
        IncompatibleModelError: if there is no description, or it is damaged or of a newer version,
            or the engine's operators are in their former form.
    """
    check_input(path)
    described = info_path(path)
    try:
        values = parse(described.read_bytes())
    except FileNotFoundError:
        raise IncompatibleModelError(
            f"{path} has no {described.name} beside it; copy that file too, "
            "or build the engine again with `dvmsr-export trt`"
        ) from None
    except OSError as error:
        raise unreadable(described, error) from None
    except ValueError:
        raise _damaged(described) from None
    if isinstance(values, dict) and type(values.get("format")) is int and values["format"] > FORMAT:
        raise IncompatibleModelError(f"{described} was made by a newer dvmsr; upgrade dvmsr")
    try:
        info = _from_dict(values)
    except (KeyError, TypeError, ValueError, AttributeError, UsageError):
        raise _damaged(described) from None
    if values["format"] == 1 and info.plugin is not None:
        raise IncompatibleModelError(
            f"{path} has dvmsr's operators in their former form, without groups; export its model "
            f"again, then build it again: {info.rebuild}"
        )
    return info


def read_engine(path: Path) -> tuple[EngineInfo, bytes]:
    """The description and the plan.

    Raises:
        DvmsrError: if one cannot be read.
        IncompatibleModelError: as `read_info`, and if the two do not belong together.
    """
    info = read_info(path)
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    if len(plan) != info.plan_bytes or hashlib.sha256(plan).hexdigest() != info.plan_sha256:
        raise IncompatibleModelError(
            f"{path} is damaged or not the engine that {info_path(path).name} describes; "
            f"copy both files again, or build it again: {info.rebuild}"
        )
    return info, plan


def check_host(
    path: Path, info: EngineInfo, target: str, tensorrt: str, compute_capability: str
) -> None:
    """Whether this TensorRT and GPU run the engine, as far as its description tells.

    Args:
        path: what the message calls the engine.
        target: `gpu` for TensorRT, `rtx` for TensorRT for RTX.
        tensorrt: version of that library.
        compute_capability: of the GPU, such as `8.9`.

    Raises:
        IncompatibleModelError: naming everything that differs and the command that rebuilds.
    """
    parts = 1 if info.version_compatible else None
    same_version = tensorrt.split(".")[:parts] == info.tensorrt.split(".")[:parts]
    differences = []
    if target != info.target or not same_version:
        differences.append(
            f"it was built by {TARGETS[info.target]} {info.tensorrt}, "
            f"and this is {TARGETS[target]} {tensorrt}"
        )
    if compute_capability not in info.compute_capabilities:
        differences.append(
            f"it is for compute capability {', '.join(info.compute_capabilities)}, "
            f"and this GPU has {compute_capability}"
        )
    if differences:
        raise IncompatibleModelError(
            f"{path} does not run here: {'; '.join(differences)}; build it again: "
            f"{info.rebuild_at(path, compute_capability)}"
        )


def _damaged(described: Path) -> IncompatibleModelError:
    return IncompatibleModelError(
        f"{described} is damaged or no description of an engine; build the engine again with "
        "`dvmsr-export trt`"
    )


_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "str | None": (str, type(None)),
    "tuple[str, ...]": (list, tuple),
}


def _from_dict(values: Any) -> EngineInfo:
    """Raises KeyError, TypeError, ValueError, AttributeError or UsageError for anything else."""
    if values["format"] < FORMAT:
        values = {**values, "profiles": _profiles_of_pictures(values["profile"])}
    values = {field.name: values[field.name] for field in fields(EngineInfo)}
    _check_types(EngineInfo, values)
    for name in ("compute_capabilities", "command"):
        if not values[name] or any(not isinstance(item, str) for item in values[name]):
            raise TypeError(name)
        values[name] = tuple(values[name])
    if values["target"] not in TARGETS or values["precision"] not in PRECISIONS:
        raise ValueError("unknown target or precision")
    values["profiles"] = {
        name: InputProfile(**_shapes(profile)) for name, profile in values["profiles"].items()
    }
    if values["plugin"] is not None:
        plugin = {field.name: values["plugin"][field.name] for field in fields(PluginInfo)}
        _check_types(PluginInfo, plugin)
        values["plugin"] = PluginInfo(**plugin)
    if any(not isinstance(item, str) for item in values["model"].values()):
        raise TypeError("model")
    if any(type(item) is not int or item < 0 for item in values["layers"].values()):
        raise TypeError("layers")
    info = EngineInfo(**values)
    if info.is_dvmsr:
        info.config, info.profile  # noqa: B018  (checks them)
    elif NETWORK not in info.model:
        raise KeyError(NETWORK)
    return info


def _shapes(profile: Any) -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(profile[name]) for name in ("min", "opt", "max")}
    if any(type(size) is not int for shape in shapes.values() for size in shape):
        raise TypeError("profile")
    return shapes


def _profiles_of_pictures(profile: Any) -> dict[str, dict[str, list[int]]]:
    """`profiles` of a format that had one `profile`, of batch, height and width."""
    shapes = {name: (b, 3, h, w) for name, (b, h, w) in _shapes(profile).items()}
    return {"input": {name: list(shape) for name, shape in shapes.items()}}


def _check_types(owner: type, values: dict[str, Any]) -> None:
    for field in fields(owner):
        kind = _TYPES.get(str(field.type))
        value = values[field.name]
        if kind and not isinstance(value, kind):
            raise TypeError(field.name)
        if kind is not bool and isinstance(value, bool):
            raise TypeError(field.name)
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise ValueError(field.name)
        if field.name.endswith("sha256") and not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(field.name)
