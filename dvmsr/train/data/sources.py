"""Where photographs are: folders, published data sets, tar shards."""

import os
import re
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvmsr.errors import UsageError
from dvmsr.runtime.images.formats import FORMATS
from dvmsr.utils.paths import check_input, exists, is_dir, is_file, unreadable

NOT_FOR_TRAINING = {
    "holds reductions": r".*_LR(_.*)?|LRx?[2-8]?|X[2-8]",
    "is for validation": r".*_(valid|test)_.*|val1",
}
"""Names of folders in published data sets, as regular expressions without case: in DIV2K
DIV2K_train_LR_bicubic and DIV2K_valid_HR, in LSDIR X4 and val1."""


@dataclass(frozen=True)
class Source:
    """Where the bytes of one image are: a whole file, or a span of a tar archive."""

    path: Path
    name: str
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            DvmsrError: if its file cannot be read.
        """
        check_input(self.path)
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise unreadable(self.path, error) from None

    def __str__(self) -> str:
        return str(self.path) if self.path.name == self.name else f"{self.path}:{self.name}"


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """Every image in the given image files, folders (searched deeply) and uncompressed tar shards.

    A folder may hold shards too; hidden files and folders in it are passed over, as are, with a
    warning, the folders of DIV2K, Flickr2K, LSDIR and the like that hold reductions or are for
    validation (`NOT_FOR_TRAINING`). The order depends on names only, and what is found twice is
    taken once.

    Raises:
        UsageError: if a path is missing or unreadable as a shard, or nothing is found at all.
        DvmsrError: if a folder cannot be read.
    """
    found: dict[tuple[str, int], Source] = {}
    for path in paths:
        for source in _sources_at(path):
            found.setdefault((os.path.realpath(source.path), source.offset), source)
    if not found:
        places = ", ".join(map(str, paths))
        kinds = ", ".join(FORMATS)
        raise UsageError(f"no images in {places}; give folders or .tar shards of {kinds} files")
    return list(found.values())


def _sources_at(path: Path) -> Iterator[Source]:
    if is_dir(path):
        for child in sorted(_files_below(path)):
            if _is_image(child.name) or child.suffix.lower() == ".tar":
                yield from _sources_at(child)
    elif not exists(path):
        raise UsageError(f"{path} does not exist; give a folder of images or a .tar shard")
    elif path.suffix.lower() in FORMATS:
        yield Source(path, path.name)
    else:
        check_input(path)
        try:
            with tarfile.open(path, "r:") as archive:
                members = [member for member in archive if member.isfile()]
        except Exception:  # damaged headers can make tarfile raise anything
            raise UsageError(
                f"{path} is damaged or not an uncompressed tar archive; decompress it or get a "
                "complete copy"
            ) from None
        for member in sorted(members, key=lambda member: member.name):
            if _is_image(member.name.rpartition("/")[2]):
                if member.size < 0:
                    raise UsageError(
                        f"{path} is damaged: {member.name} has {member.size} bytes; get a complete "
                        "copy"
                    )
                if member.sparse is not None:
                    raise UsageError(
                        f"{path} holds {member.name} with holes; pack it again without --sparse"
                    )
                yield Source(path, member.name, member.offset_data, member.size)


def _files_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise unreadable(Path(error.filename), error)

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if _is_wanted(Path(place, name))]
        yield from (path for name in files if is_file(path := Path(place, name)))


def _is_wanted(folder: Path) -> bool:
    if folder.name.startswith("."):
        return False
    for what, names in NOT_FOR_TRAINING.items():
        if re.fullmatch(names, folder.name, re.IGNORECASE):
            warnings.warn(
                f"{folder} {what}, it is left out; name it by itself to have it", stacklevel=2
            )
            return False
    return True


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in FORMATS and not name.startswith(".")
