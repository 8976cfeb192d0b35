"""A server of one file on this machine, with the faults of those elsewhere."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Answers every path with `content`, unless told otherwise.

    Attributes:
        cuts: after how many bytes each of the next answers breaks off.
        ranges: whether it begins where it is asked to.
        status: an error's number, to answer with that.
        redirects: answers of which each sends the client on, before it gets the file.
        declares: whether it tells how long the file is.
        stops_after: bytes of the first answer after which it waits for `go_on`.
        asked: the paths and the `Range` of all requests.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cuts: list[int] = []
        self.ranges, self.declares = True, True
        self.status: int | None = None
        self.redirects = 0
        self.stops_after: int | None = None
        self.stopped, self.go_on = threading.Event(), threading.Event()
        self.asked: list[tuple[str, str | None]] = []
        self.address = ""


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    """A server that runs during the block."""
    told = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, told)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield told
    finally:
        told.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(request: BaseHTTPRequestHandler, told: FileServer) -> None:
    asked = request.headers.get("Range")
    told.asked.append((request.path, asked))
    if told.status:
        request.send_error(told.status)
        return
    if told.redirects:
        told.redirects -= 1
        request.send_response(302)
        request.send_header("Location", f"{told.address}/elsewhere")
        request.end_headers()
        return
    match = re.fullmatch(r"bytes=(\d+)-", asked or "") if told.ranges else None
    start, size = int(match[1]) if match else 0, len(told.content)
    if match and start >= size:
        request.send_error(416)
        return
    request.send_response(206 if match else 200)
    if match:
        request.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
    if told.declares:
        request.send_header("Content-Length", str(size - start))
    request.end_headers()
    body = told.content[start:]
    if told.cuts:
        body = body[: told.cuts.pop(0)]
    with suppress(OSError):  # who asked may have gone
        if told.stops_after is not None:
            request.wfile.write(body[: told.stops_after])
            body, told.stops_after = body[told.stops_after :], None
            told.stopped.set()
            told.go_on.wait()
        request.wfile.write(body)
