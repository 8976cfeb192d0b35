"""Control groups as files below a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvmsr.utils import control_groups

VERSION_2 = ("0::{group}", "31 23 0:28 {root} {mounted} rw - cgroup2 cgroup2 rw,nsdelegate")
VERSION_1 = (
    "4:{controller},other:{group}\n5:name=systemd:/x\n0::/",
    "31 23 0:28 {root} {mounted} rw shared:9 - cgroup cgroup rw,{controller}\n"
    "32 23 0:28 / /nowhere rw - tmpfs tmpfs rw",
)


class Groups:
    """The groups of this process; files are given by their folder below the mounted one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mounted = folder / "groups of all"
        self._proc = folder / "proc"
        self._proc.mkdir()
        monkeypatch.setattr(control_groups, "PROC", self._proc)

    def enter(
        self, version: tuple[str, str], group: str, root: str = "/", controller: str = "memory"
    ) -> None:
        names = {"group": group, "root": root, "controller": controller}
        mounted = str(self.mounted).replace(" ", "\\040")
        (self._proc / "cgroup").write_text(version[0].format(**names) + "\n")
        mounts = version[1].format(**names, mounted=mounted)
        (self._proc / "mountinfo").write_text(f"22 1 254:0 / / rw - ext4 /dev/root rw\n{mounts}\n")

    def write(self, folder: str, **files: object) -> None:
        """Dots in names as two underlines."""
        place = self.mounted / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (place / name.replace("__", ".")).write_text(f"{content}\n")
