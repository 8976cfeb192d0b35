"""Writing a model repository, entirely or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import dvmsr
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.export.triton.config import to_text
from dvmsr.export.triton.layout import Layout
from dvmsr.utils import signals
from dvmsr.utils.atomic import check_folder
from dvmsr.utils.json_text import parse
from dvmsr.utils.paths import exists, is_dir

RECORD = "dvmsr.json"
"""In a model's folder: which files are ours."""
_CACHES = "__pycache__"
"""What Python leaves beside what it runs."""


def check(names: Sequence[str], folder: Path, overwrite: bool) -> None:
    """Whether models of these names may be written into a repository.

    Raises:
        UsageError: if two have one name, or a folder of that name is there and may not be replaced,
            or holds what we did not write, or `folder` is no folder.
        DvmsrError: if no file can be made there.
    """
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two models are called {name}; export one by itself, with --name")
    if exists(folder) and not is_dir(folder):
        raise UsageError(f"{folder} is no folder; choose another with -o")
    check_folder(folder)
    for name in names:
        if exists(folder / name):
            _check_ours(folder / name, overwrite)


def write(layouts: Sequence[Layout], folder: Path, overwrite: bool) -> None:
    """Write all models into a repository, or none; other models there stay.

    Raises:
        UsageError: as `check`.
        DvmsrError: if they cannot be written; the repository is then as it was.
    """
    check([layout.name for layout in layouts], folder, overwrite)
    new = not exists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with signals.temporary_folder(within=folder) as staging:
            for layout in layouts:
                _fill(staging / layout.name, layout)
            _put_in_place([layout.name for layout in layouts], staging, folder)
    except BaseException as error:
        if new:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise DvmsrError(
                f"{folder} cannot be written ({error.strerror}); make room or choose another place"
            ) from None
        raise


def _check_ours(model: Path, overwrite: bool) -> None:
    """Whether a folder holds nothing but what we wrote, and may be replaced."""
    if not overwrite:
        raise UsageError(f"{model} exists; allow that with --overwrite or choose another --name")
    try:
        ours = {*parse((model / RECORD).read_bytes())["files"], RECORD}
    except (OSError, ValueError, TypeError, KeyError):
        raise UsageError(
            f"{model} was not written by dvmsr-export; move it away or choose another --name"
        ) from None
    for path in sorted(model.rglob("*")):
        place = path.relative_to(model)
        if _CACHES not in place.parts and not is_dir(path) and place.as_posix() not in ours:
            raise UsageError(
                f"{path} was not written by dvmsr-export; move it away or choose another --name"
            )


def _fill(model: Path, layout: Layout) -> None:
    content: dict[str, Path | bytes] = {
        **layout.files,
        "config.pbtxt": to_text(layout.config).encode(),
    }
    record = {"dvmsr": dvmsr.__version__, "files": sorted(content)}
    content[RECORD] = f"{json.dumps(record, indent=2)}\n".encode()
    for place, source in content.items():
        target = model / place
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            if isinstance(source, bytes):
                file.write(source)
            else:
                with source.open("rb") as data:
                    shutil.copyfileobj(data, file)
            file.flush()
            os.fsync(file.fileno())


def _put_in_place(names: Sequence[str], staging: Path, folder: Path) -> None:
    """Rename all models to where they belong; if one fails, none has been."""
    replaced: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    with signals.finishing:
        try:
            for name in names:
                target = folder / name
                if exists(target):
                    old = staging / f"{name}.{secrets.token_hex(4)}"
                    target.rename(old)
                    replaced.append((old, target))
                (staging / name).rename(target)
                placed.append(target)
        except OSError:
            for target in placed:
                shutil.rmtree(target)
            for old, target in replaced:
                old.rename(target)
            raise
