"""What engine to build, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dvmsr.errors import UsageError
from dvmsr.export.trt.target import RTX_SUPPORTED
from dvmsr.runtime.backends.trt.engine_info import TARGETS, EngineInfo
from dvmsr.runtime.backends.trt.profiles import Shape, in_words

Sizes = tuple[int, ...] | Mapping[str, tuple[int, ...]]
"""Height and width of DVMSR's pictures; of other networks the shape of the only input, or the
shapes of inputs by name."""


@dataclass(frozen=True)
class Request:
    """What engine to build; see `dvmsr-export trt --help`."""

    model: Path
    """The name of a bundled model, a checkpoint or an exported ONNX file."""
    output: Path | None = None
    """By default the model's name with the precision, in the current folder."""
    precision: str | None = None
    """By default the ONNX file's, and `fp32` for a checkpoint."""
    min: Sizes | None = None
    opt: Sizes | None = None
    max: Sizes | None = None
    batch: Shape | None = None
    """Of DVMSR the smallest, usual and largest batch."""
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

    @property
    def sizes(self) -> dict[str, Sizes]:
        """Those that were given, by option."""
        given = {"--min": self.min, "--opt": self.opt, "--max": self.max}
        return {option: sizes for option, sizes in given.items() if sizes is not None}

    def command(self, path: Path, output: Path) -> tuple[str, ...]:
        """What builds the engine `output` of the model `path` again, from any folder."""
        values: dict[str, object] = {
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
        for option, sizes in self.sizes.items():
            named = sizes if isinstance(sizes, Mapping) else {"": sizes}
            for name, shape in named.items():
                words += [option, f"{name}:{in_words(shape)}" if name else in_words(shape)]
        for name, value in values.items():
            words += [name, str(value)] if value is not None else []
        for capability in self.compute_capabilities:
            words += ["--compute-capability", capability]
        return (*words, "-o", str(output.absolute()), "--overwrite")

    def check(self) -> None:
        """Whether the options go together.

        Raises:
            UsageError: if not.
        """
        if self.target not in TARGETS:
            raise UsageError(f"--target must be {' or '.join(TARGETS)}, not {self.target!r}")
        if self.target == "gpu" and self.compute_capabilities:
            raise UsageError("--compute-capability goes with --target rtx")
        if self.target == "rtx" and (self.timing_cache or self.version_compatible):
            raise UsageError(
                "TensorRT for RTX has no use for --timing-cache and --version-compatible"
            )
        if self.embed_plugin and not self.plugin:
            raise UsageError("--embed-plugin and --no-plugin contradict each other")
        for capability in self.compute_capabilities:
            if capability not in RTX_SUPPORTED:
                raise UsageError(
                    f"TensorRT for RTX has no compute capability {capability}; "
                    f"it has {', '.join(RTX_SUPPORTED)}"
                )
        if self.timing_cache and not self.timing_cache.parent.is_dir():
            raise UsageError(f"{self.timing_cache.parent} is not a folder; create it")


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
