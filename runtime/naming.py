"""Which files to read, and where each result goes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.paths import is_dir, is_file, unreadable
from dvmsr.runtime.image_io import FORMATS, check_format


@dataclass(frozen=True)
class Job:
    """One image file to read and one to write."""

    source: Path
    target: Path


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The named files, and the images directly inside the named folders, each once.

    Raises:
        UsageError: if a folder has no images.
        DvmsrError: if one cannot be read.
    """
    found: list[Path] = []
    for path in map(Path, inputs):
        found += _images_in(path) if is_dir(path) else [path]
    return list({os.path.realpath(path): path for path in found}.values())


def _images_in(folder: Path) -> list[Path]:
    try:
        names = sorted(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from None
    images = [
        path
        for path in names
        if path.suffix.lower() in FORMATS and not path.name.startswith(".") and not is_dir(path)
    ]
    if not images:
        raise UsageError(
            f"{folder} has no images; name a folder with files ending in {', '.join(FORMATS)}"
        )
    return images


def plan(inputs: Sequence[str], output: str | None, scale: int) -> list[Job]:
    """Pair every image with its result's path.

    A result lies beside its image, or in the folder `output`, which is created, as
    `NAME_x{scale}`, with the image's extension or .png where that is not one of ours. For a single
    image, `output` may also be a file. Images in a folder that are results of others there are
    left out.

    Raises:
        UsageError: if a folder has no images, `output` does not fit, or a result would lie on
            another one or on an image.
        DvmsrError: if a folder cannot be read or created.
    """
    images = find_images(inputs)
    single = len(inputs) == 1 and not is_dir(Path(inputs[0]))
    if output is not None and single and not _is_folder(output):
        check_format(Path(output))
        return [Job(images[0], Path(output))]
    if output is not None:
        _check_folder(output)
    jobs = [Job(image, _target(image, output, scale)) for image in images]
    named = {os.path.realpath(path) for path in inputs}
    jobs = _without_results(jobs, named)
    _refuse_collisions(jobs)
    if output is not None:
        _create_folder(Path(output))
    return jobs


def _is_folder(output: str) -> bool:
    return is_dir(Path(output)) or output.endswith((os.sep, "/"))


def _target(image: Path, output: str | None, scale: int) -> Path:
    suffix = image.suffix if image.suffix.lower() in FORMATS else ".png"
    folder = image.parent if output is None else Path(output)
    return folder / f"{image.stem}_x{scale}{suffix}"


def _without_results(jobs: list[Job], named: set[str]) -> list[Job]:
    """Leave out images that a folder listing found and that are another job's result."""
    results = {os.path.realpath(job.target) for job in jobs}
    return [
        job
        for job in jobs
        if (place := os.path.realpath(job.source)) in named or place not in results
    ]


def _refuse_collisions(jobs: list[Job]) -> None:
    sources = {os.path.realpath(job.source): job.source for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        place = os.path.normcase(os.path.realpath(job.target))
        if place in taken:
            raise UsageError(
                f"{taken[place]} and {job.source} would both be written to {job.target}; "
                "rename one or write them to different folders"
            )
        if place in sources:
            raise UsageError(
                f"{job.target} is both an input and the result of {job.source}; leave it out"
            )
        taken[place] = job.source


def _check_folder(output: str) -> None:
    folder = Path(output)
    if is_file(folder) or (folder.suffix.lower() in FORMATS and not _is_folder(output)):
        raise UsageError(f"{folder} names a file; for several images -o must be a folder")


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DvmsrError(
            f"{folder} cannot be created ({error.strerror}); choose another with -o"
        ) from None
