"""The control groups that this process is in, of Linux, in both versions."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")


def folders(controller: str) -> list[Path]:
    """Where the files of a controller are, `memory` or `cpu`: those of this process's group and of
    all above it that can be seen, whose limits hold as well. Empty where there are none."""
    with suppress(OSError, ValueError):
        group = _groups(controller)
        return [
            folder
            for version, root, mounted in _mounts(controller)
            if version in group
            for folder in _upwards(group[version], root, mounted)
        ]
    return []


def _groups(controller: str) -> dict[str, PurePosixPath]:
    """The process's group by the type of file system that shows it: `cgroup2`, and `cgroup` for a
    controller of the first version."""
    found = {}
    for line in (PROC / "cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            found["cgroup2"] = PurePosixPath(path)
        elif controller in controllers.split(","):
            found["cgroup"] = PurePosixPath(path)
    return found


def _mounts(controller: str) -> Iterator[tuple[str, PurePosixPath, Path]]:
    """Type, the group at the top of it, and place of the file systems that show a controller."""
    for line in (PROC / "mountinfo").read_text().splitlines():
        place, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            root, mounted = map(_unescaped, place.split(" ")[3:5])
            yield kind, PurePosixPath(root), Path(mounted)


def _upwards(group: PurePosixPath, root: PurePosixPath, mounted: Path) -> list[Path]:
    """The group's folder and those above it. A container may see its own group as the top, under
    whatever name."""
    if ".." in group.parts or not group.is_relative_to(root):
        return [mounted]
    folder = mounted / group.relative_to(root)
    return [folder, *(above for above in folder.parents if above.is_relative_to(mounted))]


def _unescaped(text: str) -> str:
    """`\\040` and so on, as the kernel writes blanks in names."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)
