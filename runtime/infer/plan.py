"""Which files to read, and where each result goes."""

import os
import string
from collections.abc import Sequence
from pathlib import Path

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.runtime.images.formats import FORMATS, check_format
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.storage.find import Found, find
from dvmsr.runtime.storage.places import Place, Stored, identity, is_dir, is_pattern, place, stored
from dvmsr.runtime.storage.remote import Remote
from dvmsr.runtime.storage.stream import STREAM, Stream
from dvmsr.runtime.video.containers import WRITTEN, check_container, is_video, result_suffix
from dvmsr.utils.paths import is_file

TEMPLATE = "{stem}_x{scale}{ext}"
"""Name of a result: the image's name without extension, the network's scale, the extension."""
FIELDS = ("stem", "suffix", "scale", "ext")
"""`suffix` is the image's own extension, without its dot."""


def plan(
    inputs: Sequence[str],
    output: str | None,
    scale: int,
    template: str = TEMPLATE,
    extension: str | None = None,
) -> list[Job]:
    """Pair every image with its result's place.

    A result lies beside its image, or in the folder `output`, in which the folders below a named
    one, or below the beginning of a pattern, are made again. For a single image, `output` may also
    be a file. Images in a folder that are results of others there are left out, as is the folder
    `output` in one that is searched.
    Videos count if they are named themselves, not in a folder.

    Args:
        template: how results are called, see `TEMPLATE`.
        extension: of the results, with its dot; None for those of the images, or .png where that
            is not one of ours. That of a picture is for pictures, that of a video for videos.

    Raises:
        UsageError: if a folder has no images, `output` or `template` does not fit, or a result
            would lie on another one or on an image.
        DvmsrError: if a folder cannot be read or created.
    """
    check_template(template)
    if STREAM in (*inputs, output):
        source = place(inputs[0])
        return [Job(source, _named_target(output or STREAM, source, extension))]
    images = find(inputs, stored(output) if output is not None else None)
    single = len(inputs) == 1 and not is_pattern(inputs[0]) and not is_dir(place(inputs[0]))
    if output is not None and single and not _is_folder(output):
        return [Job(images[0].path, _named_target(output, images[0].path, extension))]
    if output is not None:
        _check_folder(output)
    jobs = [Job(image.path, _target(image, output, scale, template, extension)) for image in images]
    named = {identity(place(path)) for path in inputs}
    jobs = _without_results(jobs, named)
    _refuse_collisions(jobs)
    targets = (job.target for job in jobs)
    for folder in {target.parent for target in targets if isinstance(target, Stored)}:
        if isinstance(folder, Remote):
            folder.check_folder()
        elif output is not None:
            _create_folder(folder)
    return jobs


def _named_target(output: str, source: Place, extension: str | None) -> Place:
    """Where a single image goes whose result is named."""
    target = place(output)
    if isinstance(target, Stream):
        return Stream(extension or "")
    if _is_folder(output):
        raise UsageError(f"{output} is a folder, and - has no name; name a file in it")
    if not target.suffix:
        raise UsageError(f"{output} has no extension; give it one, or write {output}/ for a folder")
    if is_video(source):
        check_container(target)
    else:
        check_format(target if isinstance(target, Path) else Path(target.name))
    if extension is not None:
        raise UsageError(f"{output} names the format already; leave out --format")
    if isinstance(target, Remote):
        target.check_folder()
    return target


def check_template(template: str) -> None:
    """Whether it can name results.

    Raises:
        UsageError: if not.
    """
    try:
        parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
        fields = [field for field, _, _ in parts]
        known = all(part == (part[0], "", None) and part[0] in FIELDS for part in parts)
        name = template.format(stem="a", suffix="b", scale=4, ext=".png") if known else ""
    except (ValueError, LookupError, AttributeError):
        known, name = False, ""
    if not known or "stem" not in fields:
        choices = ", ".join(f"{{{field}}}" for field in FIELDS)
        raise UsageError(
            f"--name {template!r} must contain {{stem}} and no other field than {choices}, just so"
        )
    if Path(name).name != name or not name.endswith(".png"):
        raise UsageError(f"--name {template!r} must be a file name that ends with {{ext}}")


def _is_folder(output: str) -> bool:
    return output.endswith((os.sep, "/")) or is_dir(place(output))


def _target(
    image: Found, output: str | None, scale: int, template: str, extension: str | None
) -> Stored:
    suffix = _suffix(image.path, extension)
    own = image.path.suffix.removeprefix(".")
    name = template.format(stem=image.path.stem, suffix=own, scale=scale, ext=suffix)
    folder = image.path.parent if output is None else stored(output) / image.below
    return folder / name


def _suffix(image: Place, extension: str | None) -> str:
    """The extension of a result; one of pictures is not for videos, nor the other way about."""
    if is_video(image):
        return result_suffix(image, extension)
    if extension in FORMATS:
        return extension
    return image.suffix if image.suffix.lower() in FORMATS else ".png"


def _without_results(jobs: list[Job], named: set[str]) -> list[Job]:
    """Leave out images that a folder listing found and that are another job's result."""
    results = {identity(job.target) for job in jobs}
    return [
        job for job in jobs if (source := identity(job.source)) in named or source not in results
    ]


def _refuse_collisions(jobs: list[Job]) -> None:
    sources = {identity(job.source) for job in jobs}
    taken: dict[str, Place] = {}
    for job in jobs:
        target = os.path.normcase(identity(job.target))
        if target in taken:
            raise UsageError(
                f"{taken[target]} and {job.source} would both be written to {job.target}; "
                "tell them apart by --name '{stem}_{suffix}_x{scale}{ext}', rename one, or write "
                "them to different folders"
            )
        if target == os.path.normcase(identity(job.source)):
            raise UsageError(
                f"{job.source} would be replaced by its own result; choose another --name, or a "
                "folder with -o"
            )
        if target in sources:
            raise UsageError(
                f"{job.target} is both an input and the result of {job.source}; leave it out"
            )
        taken[target] = job.source


def _check_folder(output: str) -> None:
    folder = stored(output)
    file = isinstance(folder, Path) and is_file(folder)
    if file or (folder.suffix.lower() in (*FORMATS, *WRITTEN) and not _is_folder(output)):
        raise UsageError(f"{folder} names a file; for several images -o must be a folder")


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DvmsrError(
            f"{folder} cannot be created ({error.strerror}); choose another with -o"
        ) from None
