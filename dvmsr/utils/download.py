"""Fetching a file whose content is known beforehand into the user's cache.

What arrives is kept in `NAME.part`, with which the next attempt, or the next process, goes on; the
file takes its name when its SHA-256 is right. The environment's proxies are used (HTTPS_PROXY).
"""

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dvmsr.errors import DvmsrError
from dvmsr.utils import cache, signals
from dvmsr.utils.console import notice
from dvmsr.utils.locks import hold
from dvmsr.utils.progress import progress_bar

TIMEOUT = 30.0
"""Seconds without a byte after which a connection is given up."""
PAUSE = 1.0
"""Seconds before another attempt."""
_ATTEMPTS = 4
"""That get no further, one after the other."""
_BLOCK = 2**16
_NETWORK = (OSError, http.client.HTTPException, ValueError)
"""What urllib raises; the last for addresses of proxies that are none."""


@dataclass(frozen=True)
class Remote:
    """A file elsewhere."""

    url: str
    size: int
    """Bytes."""
    sha256: str
    """Of its content, in hexadecimal."""


class _BrokenOff(Exception):
    """An attempt that got less than all; another may get the rest."""


def fetch(remote: Remote, target: Path) -> None:
    """Put the file there, unless it is there; of several processes one does it, and the others
    wait. A first signal ends the process at once.

    Raises:
        DvmsrError: if it cannot be fetched or written, or is another file than expected.
        Ended: if a signal has come.
    """
    place = target.parent
    with cache.writing(place):
        place.mkdir(parents=True, exist_ok=True)
        lock = (place / ".lock").open("w")
    with lock, signals.at_once():
        hold(lock, lambda: notice(f"another process fetches {target.name}; waiting for it"))
        if cache.holds(target, remote.sha256):
            return
        part = target.with_name(f"{target.name}.part")
        went_on = _receive(remote, target, part)
        if went_on and not cache.holds(part, remote.sha256):  # what was there before was another's
            _remove(part)
            _receive(remote, target, part)
        if not cache.holds(part, remote.sha256):
            _remove(part)
            raise _other_file(remote, target)
        with cache.writing(place), signals.finishing:
            part.replace(target)


def _receive(remote: Remote, target: Path, part: Path) -> bool:
    """Make `part` as large as the file; whether it had a beginning before."""
    with cache.writing(part.parent):
        file = part.open("ab")
    with file, progress_bar(f"fetching {target.name}", remote.size) as advance:
        if file.tell() > remote.size:
            file.truncate(0)
        before = have = most = os.fstat(file.fileno()).st_size
        advance(have)
        failures = 0
        while have < remote.size:
            try:
                _attempt(remote, target, file, have, advance)
                reason = "the connection was closed too early"
            except _BrokenOff as broken:
                reason = str(broken)
            have = os.fstat(file.fileno()).st_size
            failures = 0 if have > most else failures + 1
            most = max(most, have)
            if have < remote.size and failures == _ATTEMPTS:
                raise _unreachable(remote, target, reason)
            if have < remote.size:
                time.sleep(PAUSE)
        with cache.writing(part.parent):
            os.fsync(file.fileno())
    return before > 0


def _attempt(
    remote: Remote, target: Path, file: BinaryIO, have: int, advance: Callable[[int], None]
) -> None:
    """Append what comes after the first `have` bytes, as much as comes; where the server cannot
    begin there, all anew.

    Raises:
        _BrokenOff: if the network fails.
        DvmsrError: if the server has no such file, or another, or this cannot be written.
    """
    headers = {"User-Agent": "dvmsr", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        opener = urllib.request.build_opener()
        asked = urllib.request.Request(remote.url, headers=headers)
        response = opener.open(asked, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the answer is {error.code} {' '.join(str(error.reason).split())}"
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            file.truncate(0)
        elif error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _unreachable(remote, target, answer) from None
        raise _BrokenOff(answer) from None
    except _NETWORK as error:
        raise _BrokenOff(_reason(error)) from None
    with response:
        begins = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        if response.length not in (None, remote.size - begins):
            raise _other_file(remote, target)
        if begins < have:
            file.truncate(0)
            advance(-have)
        while block := _next(response):
            begins += len(block)
            if begins > remote.size:
                raise _other_file(remote, target)
            with cache.writing(target.parent):
                file.write(block)
                file.flush()
            advance(len(block))


def _next(response: http.client.HTTPResponse) -> bytes:
    """What has arrived since; nothing at the end."""
    try:
        return response.read1(_BLOCK)
    except _NETWORK as error:
        raise _BrokenOff(_reason(error)) from None


def _remove(part: Path) -> None:
    with cache.writing(part.parent):
        part.unlink()


def _reason(error: Exception) -> str:
    """In a few words, on one line."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    text = inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)
    return " ".join(text.split()) or type(inner).__name__


def _unreachable(remote: Remote, target: Path, reason: str) -> DvmsrError:
    return DvmsrError(
        f"{remote.url} cannot be fetched ({reason}); check the network and HTTPS_PROXY and try "
        f"again, or put the file at {target}"
    )


def _other_file(remote: Remote, target: Path) -> DvmsrError:
    return DvmsrError(
        f"{remote.url} is answered with another file than expected; try another network, or put "
        f"the file with SHA-256 {remote.sha256} at {target}"
    )
