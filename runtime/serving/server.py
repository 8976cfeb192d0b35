"""Listening, and ending on a signal."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.utils import signals

_LOOK = 0.1
"""Seconds between two looks for a signal."""
_FAREWELL = 2
"""Seconds in which answers may be sent after a signal: less than `signals.GRACE`."""
_BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, to be listened on.

    Args:
        port: 0 for any that is free.

    Raises:
        UsageError: if there is no such address.
        DvmsrError: if it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UsageError(f"--host {host} is no address of this machine; name one") from None
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise DvmsrError(
                f"port {port} of {host} is in use; choose another with --port, or 0 for any"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"--host {host} is no address of this machine; name one") from None
        if error.errno == errno.EACCES:
            raise DvmsrError(
                f"port {port} of {host} is not for you; choose one above 1023 with --port"
            ) from None
        raise DvmsrError(f"port {port} of {host} cannot be used ({error.strerror})") from None
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def url(host: str, bound: socket.socket) -> str:
    """Where a browser on this machine reaches it."""
    address = ipaddress.ip_address(bound.getsockname()[0].partition("%")[0])
    if address.is_unspecified:  # all of this machine's, none of which that one is
        host = "::1" if address.version == 6 else "127.0.0.1"
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{bound.getsockname()[1]}/"


class _Server(uvicorn.Server):
    """One that leaves signals to `dvmsr.utils.signals`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(application: Any, bound: socket.socket) -> None:
    """Until a signal comes; what is done then is given up.

    Raises:
        Ended: if a signal has come.
    """
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_FAREWELL,
        ws="none",
    )
    server = _Server(config)

    async def until_signal() -> None:
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        while not serving.done() and not signals.told():
            await asyncio.wait({serving}, timeout=_LOOK)
        server.should_exit = True
        await serving

    asyncio.run(until_signal())
    signals.check()
