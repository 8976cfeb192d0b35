"""TensorRT engines on disk: a plan, and beside it a JSON file that says what the plan is.

`net.engine` is exactly what TensorRT serialised, so that `trtexec --loadEngine`, Triton, DeepStream
and polygraphy take it as it is. `net.engine.json` holds an `EngineInfo`; it names the plan's
SHA-256, so that a plan and a description of different builds are not taken for a pair. Both travel
together. Neither TensorRT nor onnx nor torch is needed to read or to write them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dvmsr.errors import DvmsrError, IncompatibleModelError, UsageError
from dvmsr.runtime.backends.trt.engine_info import FORMAT, EngineInfo, from_dict
from dvmsr.utils import rights
from dvmsr.utils.atomic import check_target, replacing
from dvmsr.utils.json_text import parse
from dvmsr.utils.paths import check_input, exists, unreadable


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
        info = from_dict(values)
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


def _damaged(described: Path) -> IncompatibleModelError:
    return IncompatibleModelError(
        f"{described} is damaged or no description of an engine; build the engine again with "
        "`dvmsr-export trt`"
    )
