"""Which pictures the names that a user gives stand for."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from dvmsr.errors import UsageError
from dvmsr.runtime.images.formats import FORMATS, NOT_READ
from dvmsr.runtime.storage.places import Stored, identity, is_dir, is_pattern, matches, stored
from dvmsr.runtime.storage.remote import Remote
from dvmsr.runtime.video.containers import is_video
from dvmsr.utils.paths import unreadable


@dataclass(frozen=True)
class Found:
    """An image, and the folders between it and the one that was named."""

    path: Stored
    below: PurePath = Path()


def find_images(name: str) -> list[Path]:
    """The named file, or the images inside the named folder, searched deeply; see `plan`.

    Raises:
        UsageError: if a folder has no images, or nothing matches a pattern.
        DvmsrError: if a folder cannot be read.
    """
    return [image.path for image in find([name], None) if isinstance(image.path, Path)]


def find(inputs: Sequence[str], leave_out: Stored | None) -> list[Found]:
    """The named images, and those inside the named folders, searched deeply, each once.

    What is hidden is passed over, and links to folders are not followed. A name that does not
    exist may be a pattern: `photos/**/*.jpg`.

    Args:
        leave_out: a folder that is not searched, unless it is named itself.
    """
    found: dict[str, Found] = {}
    for path, below in _expanded(inputs):
        if is_dir(path):
            images = [Found(it.path, below / it.below) for it in _images_in(path, leave_out)]
        else:
            images = [Found(path, below.parent)]
        found.update((identity(image.path), image) for image in images)
    return list(found.values())


def _expanded(inputs: Sequence[str]) -> Iterator[tuple[Stored, PurePath]]:
    """The inputs, patterns replaced by what they match, with the paths from where they begin."""
    for name in inputs:
        if not is_pattern(name):
            yield stored(name), PurePath()
            continue
        found = matches(name)
        if not found:
            raise UsageError(f"nothing matches {name}; check the pattern")
        yield from found


def _images_in(folder: Stored, leave_out: Stored | None) -> list[Found]:
    unwanted = None if leave_out is None else identity(leave_out)
    below = (
        _objects_below(folder, unwanted)
        if isinstance(folder, Remote)
        else _files_below(folder, unwanted)
    )
    shown = [file for file in below if not file.path.name.startswith(".")]
    images = [file for file in shown if file.path.suffix.lower() in FORMATS]
    if videos := sum(is_video(file.path) for file in shown):
        warnings.warn(
            f"{folder} has {videos} video{'s' * (videos > 1)}, passed over; videos count when they "
            "are named themselves",
            stacklevel=2,
        )
    others = [file.path.suffix.lower() for file in shown if file.path.suffix.lower() in NOT_READ]
    if others:
        kinds = ", ".join(sorted(set(others)))
        warnings.warn(
            f"{folder} has {len(others)} picture{'s' * (len(others) > 1)} of kinds that are not "
            f"read ({kinds}), passed over; convert them to PNG, JPEG or TIFF",
            stacklevel=2,
        )
    if not images:
        raise UsageError(
            f"{folder} has no images; name a folder with files ending in {', '.join(FORMATS)}"
        )
    return images


def _objects_below(folder: Remote, unwanted: str | None) -> Iterator[Found]:
    for path, below in folder.below():
        hidden = any(part.startswith(".") for part in below.parts)
        if not hidden and not (unwanted and path.url.startswith(f"{unwanted.rstrip('/')}/")):
            yield Found(path, below.parent)


def _files_below(folder: Path, unwanted: str | None) -> Iterator[Found]:
    def refuse(error: OSError) -> None:
        raise unreadable(Path(error.filename), error)

    for root, folders, names in os.walk(folder, onerror=refuse):
        here = Path(root)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(here / name) != unwanted
        )
        yield from (Found(here / name, here.relative_to(folder)) for name in sorted(names))
