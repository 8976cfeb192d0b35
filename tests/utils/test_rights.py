from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from dvmsr.utils import rights

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
ACL = "system.posix_acl_access"
OTHER = 12345
"""A user and a group that nobody is."""
requires_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to be root"
)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    rights.create_private(new)
    assert mode(new) == 0o600
    return old, new


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def take_over(pair: tuple[Path, Path]) -> os.stat_result:
    with pair[1].open("rb+") as file:
        rights.take_over(pair[0], file.fileno())
    return pair[1].stat()


@pytest.mark.parametrize("before", [0o600, 0o640, 0o644, 0o666, 0o755, 0o400, 0o444, 0o604])
def test_the_mode(pair: tuple[Path, Path], before: int) -> None:
    pair[0].chmod(before)
    take_over(pair)
    assert mode(pair[1]) == before


def test_special_bits_go(pair: tuple[Path, Path]) -> None:
    pair[0].chmod(0o6755)
    take_over(pair)
    assert mode(pair[1]) == 0o755


@requires_root
def test_the_owner(pair: tuple[Path, Path]) -> None:
    os.chown(pair[0], OTHER, OTHER + 1)
    pair[0].chmod(0o640)
    after = take_over(pair)
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (OTHER, OTHER + 1, 0o640)


@requires_root
@pytest.mark.parametrize(
    ("group_too", "before", "after"),
    [
        (False, 0o640, 0o640),
        (True, 0o640, 0o600),  # nobody of another group reads it
        (True, 0o664, 0o644),
        (True, 0o604, 0o600),  # the old group was kept from it, and is among the others now
        (True, 0o666, 0o666),
    ],
)
def test_an_owner_that_may_not_be_given(
    pair: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    group_too: bool,
    before: int,
    after: int,
) -> None:
    real = os.fchown

    def fchown(file: int, user: int, group: int) -> None:
        if user != -1 or group_too:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(file, user, group)

    os.chown(pair[0], OTHER, OTHER)
    pair[0].chmod(before)
    monkeypatch.setattr(os, "fchown", fchown)
    found = take_over(pair)
    assert stat.S_IMODE(found.st_mode) == after
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid() if group_too else OTHER)


def access_list(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
LIST = access_list(
    (1, 6, NOBODY), (2, 6, OTHER), (4, 0, NOBODY), (0x10, 6, NOBODY), (0x20, 0, NOBODY)
)
"""Read and write for one more user, nothing for the group, whose bits of the mode say otherwise."""


def set_list(path: Path) -> None:
    try:
        os.setxattr(path, ACL, LIST)
    except (AttributeError, OSError):
        pytest.skip("needs a file system with access control lists")


def test_an_access_control_list(pair: tuple[Path, Path]) -> None:
    set_list(pair[0])
    take_over(pair)
    assert os.getxattr(pair[1], ACL) == LIST


def test_a_list_that_may_not_be_given(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> NoReturn:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    set_list(pair[0])
    monkeypatch.setattr(os, "setxattr", refuse)
    take_over(pair)
    assert mode(pair[1]) == 0o600


def test_a_list_that_only_the_new_file_has(pair: tuple[Path, Path]) -> None:
    """From its folder."""
    set_list(pair[1])
    pair[0].chmod(0o660)
    take_over(pair)
    assert mode(pair[1]) == 0o660
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(pair[1], ACL)
