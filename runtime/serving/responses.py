"""A picture as the answer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import BinaryIO

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_CHUNK = 256 << 10
_MOST_WARNINGS = 4096
"""Bytes of a header."""


class FileContent(Response):
    """The content of an open file, which need not have a name any more, piece by piece.

    Args:
        stall: seconds in which a client must take something.
        close: called when all is sent, or nobody takes it.
    """

    def __init__(
        self,
        file: BinaryIO,
        media_type: str,
        headers: dict[str, str],
        stall: float,
        close: Callable[[], None],
    ) -> None:
        super().__init__(media_type=media_type, headers=headers)
        self.headers["content-length"] = str(os.fstat(file.fileno()).st_size)
        self._file, self._stall, self._close = file, stall, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await send(start)
            more = True
            while more:
                chunk = self._file.read(_CHUNK)
                more = bool(chunk)
                with anyio.fail_after(self._stall):
                    await send({"type": "http.response.body", "body": chunk, "more_body": more})
        except TimeoutError:  # the client gets less than was announced, and knows it
            return
        finally:
            self._file.close()
            self._close()


def warnings_header(warnings: tuple[str, ...]) -> str:
    """A JSON list in ASCII of as many as a header has room for, and how many more there are."""
    for kept in range(len(warnings), -1, -1):
        more = [f"and {len(warnings) - kept} more"] if kept < len(warnings) else []
        if len(text := json.dumps([*warnings[:kept], *more])) <= _MOST_WARNINGS:
            break
    return text
