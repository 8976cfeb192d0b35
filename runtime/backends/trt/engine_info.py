"""What is known of an engine without loading it, and as JSON."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dvmsr.config import DVMSRConfig
from dvmsr.errors import IncompatibleModelError
from dvmsr.runtime.backends.trt.profiles import InputProfile, Profile, in_words

FORMAT = 3
"""Version of the description. 1: the plugin knows the operators in their former form, no groups.
2: of DVMSR alone, whose `profile` has batch, height and width."""
TARGETS = {"gpu": "TensorRT", "rtx": "TensorRT for RTX"}
PRECISIONS = ("fp32", "fp16", "bf16")
CONFIG, NETWORK = "dvmsr.config", "dvmsr.network"
"""Properties, one of which every `EngineInfo.model` has: of DVMSR, and of any other network."""


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


_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "str | None": (str, type(None)),
    "tuple[str, ...]": (list, tuple),
}


def from_dict(values: Any) -> EngineInfo:
    """What `EngineInfo.to_json` gave, checked, or an earlier version of dvmsr.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, UsageError: for anything else.
    """
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
