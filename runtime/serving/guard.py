"""What a request must be before anything looks at it, and what its answer may do in a browser.

Other pages that a browser shows cannot use the service: neither under a name of their own that they
have point here (DNS rebinding), nor from their own origin.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dvmsr.runtime.serving.refusals import Refusal

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class Guard:
    """An ASGI application before another.

    Args:
        names: hosts by which the service is known, without ports; None for any.
        token: what requests must carry (`Authorization: Bearer ...`); None for nothing.
        open: paths that need no token.
        refused: called with the path and the status of what is refused here.
    """

    def __init__(
        self,
        app: ASGIApp,
        names: Collection[str] | None,
        token: str | None,
        open: Collection[str] = (),
        refused: Callable[[str, int], None] = lambda path, status: None,
    ) -> None:
        self._app, self._names, self._token, self._open = app, names, token, open
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        if scope["method"] == "HEAD":  # the server sends the answer to GET without its body
            scope = {**scope, "method": "GET"}
        refusal = self._refusal(scope["path"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, guarded)
        else:
            self._refused(scope["path"], refusal.status)
            await answer(refusal)(scope, receive, guarded)

    def _refusal(self, path: str, headers: Headers) -> Refusal | None:
        host = headers.get("host", "").lower()
        if self._names is not None and without_port(host) not in self._names:
            return Refusal(421, "the service does not answer by this name; use its own address")
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host
        site = headers.get("sec-fetch-site", "none")
        followed = headers.get("sec-fetch-mode") == "navigate"  # a link
        if foreign or (site not in ("same-origin", "none") and not followed):
            return Refusal(403, "the service does not answer to other pages")
        if self._token is not None and path not in self._open:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode(), self._token.encode())
            if scheme.lower() != "bearer" or not right:
                return Refusal(401, "the service wants its token; ask who runs it")
        return None


def without_port(host: str) -> str:
    """`[::1]:8000` -> `[::1]`."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def answer(refusal: Refusal) -> JSONResponse:
    """A refusal as a response."""
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": refusal.sentence}, refusal.status, headers)
