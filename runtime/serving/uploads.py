"""What comes with a request; its body goes to a file."""

from __future__ import annotations

import errno
import time
from typing import BinaryIO

import anyio
from starlette.requests import Request

from dvmsr.runtime.serving.limits import Limits
from dvmsr.runtime.serving.refusals import BUSY_SECONDS, Refusal
from dvmsr.utils.sizes import in_words


def check_headers(request: Request, limits: Limits) -> None:
    """Whether the body can be a picture, before any of it is read.

    Raises:
        Refusal: if not.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise Refusal(415, "the body is a form; send the bytes of the picture alone")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "the body is compressed; send the bytes of the picture as they are")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.bytes:
        raise _too_large(limits)


def check_query(request: Request) -> None:
    """Whether each parameter is given once.

    Raises:
        Refusal: if not.
    """
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise Refusal(422, f"{name} is given {names.count(name)} times; give it once")


async def receive(request: Request, file: BinaryIO, limits: Limits) -> None:
    """Write the body to a file, no more of it than is allowed.

    Raises:
        Refusal: if it is empty, too large, or comes too slowly.
        ClientDisconnect: if the client goes.
    """
    total, end = 0, time.monotonic() + limits.seconds
    chunks = aiter(request.stream())
    while True:
        try:
            with anyio.fail_after(min(limits.stall, end - time.monotonic())):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            break
        except TimeoutError:
            raise Refusal(408, "the picture came too slowly; send it again") from None
        total += len(chunk)
        if total > limits.bytes:
            raise _too_large(limits)
        try:
            file.write(chunk)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise Refusal(503, "the service has no room for the picture", BUSY_SECONDS) from None
    if not total:
        raise Refusal(422, "the picture is empty; get a complete copy of it")


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413, f"the picture's file has more than {in_words(limits.bytes)}, the most that is taken"
    )
