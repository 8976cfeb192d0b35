"""Bodies that come too slowly, or not at all, and results that nobody takes."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from dvmsr.runtime.serving.limits import Limits
from dvmsr.runtime.serving.refusals import Refusal
from dvmsr.runtime.serving.responses import FileContent, warnings_header
from dvmsr.runtime.serving.uploads import receive

IMPATIENT = Limits(stall=0.01)
POST = {"type": "http", "method": "POST", "headers": []}


def received(*messages: dict[str, Any], limits: Limits = IMPATIENT) -> bytes:
    """What is written of a body that comes in these messages, after which nothing more comes."""
    left = list(messages)

    async def next_message() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    file = io.BytesIO()
    asyncio.run(receive(Request(POST, next_message), file, limits))
    return file.getvalue()


def part(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_parts_is_put_together() -> None:
    assert received(part(b"ab", True), part(b"c", False)) == b"abc"


@pytest.mark.parametrize("limits", [IMPATIENT, Limits(seconds=0.01)])
def test_who_sends_nothing_more_is_refused(limits: Limits) -> None:
    with pytest.raises(Refusal) as found:
        received(part(b"ab", True), limits=limits)
    assert found.value.status == 408


def test_who_goes_ends_it() -> None:
    with pytest.raises(ClientDisconnect):
        received(part(b"ab", True), {"type": "http.disconnect"})


def test_a_body_may_be_as_large_as_the_limit() -> None:
    limits = Limits(bytes=3)
    assert received(part(b"abc", False), limits=limits) == b"abc"
    with pytest.raises(Refusal) as found:
        received(part(b"abc", True), part(b"d", False), limits=limits)
    assert found.value.status == 413


def sent(path: Path, takes: bool) -> tuple[bytes, list[str]]:
    """What of a file's content is sent to a client that takes it or not, and what is closed."""
    told: list[str] = []
    body = bytearray()

    async def send(message: Any) -> None:
        body.extend(message.get("body", b""))
        if not takes and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def nothing() -> Any:
        raise AssertionError

    with path.open("rb") as file:
        path.unlink()
        response = FileContent(file, "image/png", {}, 0.01, lambda: told.append("closed"))
        asyncio.run(response(POST, nothing, send))
        assert file.closed
    return bytes(body), told


def test_a_result_is_sent_whole_after_its_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "result"
    content = bytes(range(256)) * 3000
    path.write_bytes(content)
    assert sent(path, takes=True) == (content, ["closed"])


def test_who_takes_nothing_gives_the_place_free(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(bytes(1_000_000))
    body, told = sent(path, takes=False)
    assert len(body) < 1_000_000 and told == ["closed"]


def test_warnings_fit_a_header() -> None:
    assert warnings_header(("größer",)) == '["gr\\u00f6\\u00dfer"]'
    long = "x" * 1000
    header = warnings_header((long,) * 9)
    assert len(header) <= 4096 and json.loads(header) == [long] * 4 + ["and 5 more"]
    assert warnings_header(("x" * 5000,)) == '["and 1 more"]'
