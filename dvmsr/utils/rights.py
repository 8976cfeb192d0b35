"""Who may read and write a file that takes another's place."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

_ACL = "system.posix_acl_access"
"""The attribute in which Linux keeps an access control list."""
_NO_LIST = (errno.ENODATA, errno.ENOTSUP)


def create_private(path: Path) -> None:
    """A new, empty file that its owner alone may read and write.

    Raises:
        OSError: if it cannot be made.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def take_over(old: Path, file: int) -> None:
    """Give an open file the owner, group, mode and access control list of another, links followed.

    What this user may not give is left out, and nobody then gains by that: a file that belongs to
    another group than the old one gives group and others no more than both had. Special bits are
    not taken over.

    Args:
        file: the descriptor of the new file.

    Raises:
        OSError: if a right cannot be taken away.
    """
    if not hasattr(os, "fchown"):  # no POSIX
        return
    was, now = old.stat(), os.fstat(file)
    mode = stat.S_IMODE(was.st_mode) & 0o777
    if (was.st_uid, was.st_gid) != (now.st_uid, now.st_gid):
        for owner in (was.st_uid, -1):
            with suppress(OSError):
                os.fchown(file, owner, was.st_gid)
                break
    if os.fstat(file).st_gid != was.st_gid:
        common = mode >> 3 & mode & 0o7
        mode = mode & 0o700 | common << 3 | common
    if not _copy_list(old, file):
        mode &= ~0o070  # which stand for the list's mask, not for the group
    if stat.S_IMODE(os.fstat(file).st_mode) != mode:
        os.fchmod(file, mode)


def _copy_list(old: Path, file: int) -> bool:
    """Whether both files now have the same access control list, or none."""
    if not hasattr(os, "getxattr"):  # no Linux
        return True
    try:
        entries = os.getxattr(old, _ACL)
    except OSError as error:
        if error.errno not in _NO_LIST:
            return False
        with suppress(OSError):  # what a folder may have passed on
            os.removexattr(file, _ACL)
        return True
    try:
        os.setxattr(file, _ACL, entries)
    except OSError:
        return False
    return True
