"""Which files to read, and where each result goes."""

from __future__ import annotations

import glob
import os
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.paths import exists, is_dir, is_file, unreadable
from dvmsr.runtime.image_io import FORMATS, check_format

TEMPLATE = "{stem}_x{scale}{ext}"
"""Name of a result: the image's name without extension, the network's scale, the extension."""
FIELDS = ("stem", "scale", "ext")


@dataclass(frozen=True)
class Job:
    """One image file to read and one to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Found:
    """An image file, and the folders between it and the one that was named."""

    path: Path
    below: Path = Path()


def find_images(inputs: Sequence[str], leave_out: Path | None = None) -> list[Path]:
    """The named files, and the images inside the named folders, searched deeply, each once.

    What is hidden is passed over, and links to folders are not followed. A name that does not
    exist may be a pattern: `photos/**/*.jpg`.

    Args:
        leave_out: a folder that is not searched, unless it is named itself.

    Raises:
        UsageError: if a folder has no images, or nothing matches a pattern.
        DvmsrError: if a folder cannot be read.
    """
    return [image.path for image in _find(inputs, leave_out)]


def _find(inputs: Sequence[str], leave_out: Path | None) -> list[Found]:
    found: dict[str, Found] = {}
    for name in _expanded(inputs):
        path = Path(name)
        for image in _images_below(path, leave_out) if is_dir(path) else [Found(path)]:
            found[os.path.realpath(image.path)] = image
    return list(found.values())


def _expanded(inputs: Sequence[str]) -> Iterator[str]:
    """The inputs, patterns replaced by what they match."""
    for name in inputs:
        if not _is_pattern(name):
            yield name
            continue
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - Path.glob is relative
        if not matches:
            raise UsageError(f"nothing matches {name}; check the pattern")
        yield from matches


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not exists(Path(name))


def _images_below(folder: Path, leave_out: Path | None) -> list[Found]:
    def refuse(error: OSError) -> None:
        raise unreadable(Path(error.filename), error)

    unwanted = leave_out and os.path.realpath(leave_out)
    images = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(here / name) != unwanted
        )
        images += [
            Found(here / name, here.relative_to(folder))
            for name in sorted(names)
            if Path(name).suffix.lower() in FORMATS and not name.startswith(".")
        ]
    if not images:
        raise UsageError(
            f"{folder} has no images; name a folder with files ending in {', '.join(FORMATS)}"
        )
    return images


def plan(
    inputs: Sequence[str],
    output: str | None,
    scale: int,
    template: str = TEMPLATE,
    extension: str | None = None,
) -> list[Job]:
    """Pair every image with its result's path.

    A result lies beside its image, or in the folder `output`, in which the folders below a named
    one are made again. For a single image, `output` may also be a file. Images in a folder that
    are results of others there are left out, as is the folder `output` in one that is searched.

    Args:
        template: how results are called, see `TEMPLATE`.
        extension: of the results, with its dot; None for those of the images, or .png where that
            is not one of ours.

    Raises:
        UsageError: if a folder has no images, `output` or `template` does not fit, or a result
            would lie on another one or on an image.
        DvmsrError: if a folder cannot be read or created.
    """
    check_template(template)
    images = _find(inputs, Path(output) if output is not None else None)
    single = len(inputs) == 1 and not is_dir(Path(inputs[0])) and not _is_pattern(inputs[0])
    if output is not None and single and not _is_folder(output):
        check_format(Path(output))
        if extension is not None:
            raise UsageError(f"{output} names the format already; leave out --format")
        return [Job(images[0].path, Path(output))]
    if output is not None:
        _check_folder(output)
    jobs = [Job(image.path, _target(image, output, scale, template, extension)) for image in images]
    named = {os.path.realpath(path) for path in inputs}
    jobs = _without_results(jobs, named)
    _refuse_collisions(jobs)
    if output is not None:
        for folder in {job.target.parent for job in jobs}:
            _create_folder(folder)
    return jobs


def check_template(template: str) -> None:
    """Whether it can name results.

    Raises:
        UsageError: if not.
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template)]
        known = all(field is None or field in FIELDS for field in fields)
        name = template.format(stem="a", scale=4, ext=".png") if known else ""
    except (ValueError, LookupError, AttributeError):
        known, name = False, ""
    if not known or "stem" not in fields:
        choices = ", ".join(f"{{{field}}}" for field in FIELDS)
        raise UsageError(
            f"--name {template!r} must contain {{stem}} and no other field than {choices}"
        )
    if Path(name).name != name or not name.endswith(".png"):
        raise UsageError(f"--name {template!r} must be a file name that ends with {{ext}}")


def _is_folder(output: str) -> bool:
    return is_dir(Path(output)) or output.endswith((os.sep, "/"))


def _target(
    image: Found, output: str | None, scale: int, template: str, extension: str | None
) -> Path:
    own = image.path.suffix if image.path.suffix.lower() in FORMATS else ".png"
    name = template.format(stem=image.path.stem, scale=scale, ext=extension or own)
    folder = image.path.parent if output is None else Path(output) / image.below
    return folder / name


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
