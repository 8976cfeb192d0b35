"""Runs `worker`, which builds one engine, to its end."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import signal
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, UsageError
from dvmsr.export.trt.progress import BuildDisplay
from dvmsr.export.trt.request import Request
from dvmsr.export.trt.target import INSTALL
from dvmsr.runtime.backends.trt.engine_info import TARGETS
from dvmsr.runtime.backends.trt.plugin_library import PluginLibrary
from dvmsr.runtime.backends.trt.profiles import InputProfile
from dvmsr.utils import child_python, signals
from dvmsr.utils.console import notice

_UNFIT = re.compile(
    r"k(?P<which>MIN|OPT|MAX) values (?:for profile 0 )?"
    r"(?:are not self-consistent\.|violate shape constraints:) (?P<reason>.*?)"
    r"(?=\.? ?(?:Condition|In \w+(?:\(\))? at)|$)",
    re.S,
)
"""What TensorRT says of sizes at which shapes inside the network do not fit each other."""


def run(
    request: Request,
    model: bytes,
    profiles: dict[str, InputProfile],
    capabilities: tuple[str, ...],
    library: PluginLibrary | None,
    inspect: bool,
) -> tuple[bytes, dict[str, Any]]:
    """Build in a process of its own.

    Args:
        model: an ONNX model without functions for what the plugin does.
        inspect: whether the process shall load the engine, which needs its GPU, and tell of it.

    Returns:
        The plan, and what the process said of it: `tensorrt`, `layers`, `inspected`, `seconds`
        and `peak_bytes`.

    Raises:
        DvmsrError: if it fails, with TensorRT's or the plugin's first error, or the disk is full.
        MissingComponentError: if a library that it needs does not load.
        IncompatibleModelError: if TensorRT cannot parse the model.
        UsageError: if the network does not take its smallest, usual or largest inputs.
    """
    with signals.temporary_folder() as folder:
        job = {
            "target": request.target,
            "model": str(folder / "model.onnx"),
            "plan": str(folder / "plan"),
            "plugin": library.pure if library else None,
            "profiles": {name: asdict(profile) for name, profile in profiles.items()},
            "compute_capabilities": capabilities,
            "embed_plugin": request.embed_plugin,
            "version_compatible": request.version_compatible,
            "workspace_mib": request.workspace_mib,
            "timing_cache": str(request.timing_cache) if request.timing_cache else None,
            "inspect": inspect,
        }
        written(folder / "model.onnx", model)
        written(folder / "job.json", json.dumps(job).encode())
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


def written(path: Path, data: bytes) -> Path:
    """A new file in a temporary folder.

    Raises:
        DvmsrError: if there is no space left.
    """
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
            f"the library of TensorRT for RTX is not installed; {INSTALL['rtx']}"
        )
    library = Path(spec.origin).with_name("libtensorrt_rtx.so.1")
    (folder / "libtensorrt_rtx.so").symlink_to(library)


def _full(folder: Path) -> DvmsrError:
    return DvmsrError(
        f"{folder.parent} has no space left for building; make room, or set TMPDIR to another "
        "folder"
    )


def _listen(folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Show the worker's progress, and gather what it says."""
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
    for text in (*errors, *warnings):
        if unfit := _UNFIT.search(text):  # with a warning TensorRT makes a plan that fails later
            option = unfit["which"].lower()
            raise UsageError(
                f"TensorRT cannot compute the model with the sizes of --{option} "
                f"({unfit['reason']}); choose others"
            )
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
            f"reinstall it, {' or '.join(INSTALL.values())}"
        )
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise DvmsrError(f"TensorRT crashed ({name}); its messages are above")
    telling = [text for text in [*printed, *errors] if text.startswith(("dvmsr ", "In node "))]
    reason = [*telling, *errors, *printed[-1:], "it gave no reason"][0].splitlines()[0]
    kind = DvmsrError if "layers" in said else IncompatibleModelError
    raise kind(f"TensorRT could not build the engine ({reason})")
