"""The HTTP interface and the page, as an ASGI application."""

# No `from __future__ import annotations`: FastAPI reads annotations that name what `build` makes.
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import ExitStack, asynccontextmanager
from enum import Enum
from functools import partial
from typing import Annotated

import anyio
from fastapi import APIRouter, FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import dvmsr
from dvmsr.runtime.images.formats import FORMATS
from dvmsr.runtime.serving import site
from dvmsr.runtime.serving.description import as_page
from dvmsr.runtime.serving.enlarging import Enlarged, Wish
from dvmsr.runtime.serving.guard import Guard, answer
from dvmsr.runtime.serving.limits import Limits
from dvmsr.runtime.serving.metrics import MEDIA_TYPE, Metrics
from dvmsr.runtime.serving.models import Models
from dvmsr.runtime.serving.queue import Job, Queue
from dvmsr.runtime.serving.refusals import Refusal
from dvmsr.runtime.serving.responses import FileContent, warnings_header
from dvmsr.runtime.serving.schemas import (
    BINARY,
    TOLD,
    Health,
    Limited,
    ModelDescription,
    Progress,
    failures,
)
from dvmsr.runtime.serving.uploads import check_headers, check_query, receive
from dvmsr.utils import signals

_ENLARGE = "/enlarge"
_ID = "^[A-Za-z0-9-]{16,64}$"
_DESCRIPTION = """Send the bytes of a picture, get those of a larger one.

Results are those of dvmsr-infer to the bit. Nothing is kept. Every failure is a JSON object whose
`error` is one sentence; 429 and 503 say in `Retry-After` after how many seconds to try again."""


def build(
    models: Models,
    limits: Limits,
    names: Collection[str] | None = None,
    token: str | None = None,
) -> Guard:
    """The application.

    Args:
        models: at least one.
        names: hosts by which the service is known, without ports; None for any.
        token: what requests must carry; None for nothing.
    """
    queue = Queue(limits, models.at_once)
    described = models.described
    metrics = Metrics(lambda: len(queue), limits.queue)
    formats = _written()

    @asynccontextmanager
    async def until_end(app: FastAPI) -> AsyncIterator[None]:
        yield
        queue.close()

    app = FastAPI(
        title="dvmsr serve",
        version=dvmsr.__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=until_end,
    )
    secured = APIRouter(
        dependencies=[] if token is None else [Security(HTTPBearer(auto_error=False))]
    )
    app.state.queue = queue
    ModelName = Enum("ModelName", {name: name for name in described})  # type: ignore[misc]
    FormatName = Enum("FormatName", {name: name for name in formats})  # type: ignore[misc]

    class Wishes(BaseModel):
        """The query of `/enlarge`."""

        model_config = ConfigDict(extra="forbid")
        model: ModelName = Field(
            ModelName(next(iter(described))), description="The network, and with it the scale."
        )
        format: FormatName | None = Field(
            None, description="Of the result; the picture's where it is left out."
        )
        quality: int | None = Field(
            None, ge=1, le=100, description="Of JPEG, WebP and AVIF; a JPEG's own, or 95, 95, 90."
        )
        to_srgb: bool = Field(False, description="Convert colours with another profile to sRGB.")
        id: str | None = Field(
            None, pattern=_ID, description="A name of yours, new each time, for `/progress/{id}`."
        )

    @secured.post(
        _ENLARGE,
        summary="Enlarge a picture",
        response_class=Response,
        responses={
            200: {
                "description": "The larger picture",
                "content": dict.fromkeys(sorted(set(formats.values())), BINARY),
                "headers": {name: {"schema": {"type": "string"}} for name in TOLD},
            },
            **failures(401, 408, 409, 413, 415, 422, 429, 500, 503),
        },
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/octet-stream": BINARY}}
        },
    )
    async def enlarge_picture(request: Request, query: Annotated[Wishes, Query()]) -> Response:
        """The body is the file of a picture: PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF, whatever
        its Content-Type says. Where a client goes, the work stops."""
        name = query.model.value
        extension = None if query.format is None else f".{query.format.value}"
        wish = Wish(name, extension, query.quality, query.to_srgb)
        with ExitStack() as until_sent:
            try:
                check_query(request)
                check_headers(request, limits)
                client = request.client.host if request.client else ""
                place = queue.place(query.id or uuid.uuid4().hex, client)
                job = until_sent.enter_context(place)
                with signals.temporary_folder() as folder:
                    source = folder / "picture"
                    with source.open("wb") as file:
                        await receive(request, file, limits)
                    work = partial(models.enlarge, source, wish, limits.pixels, job.show)
                    made = await _unless_gone(request, queue, job, work)
                    result = until_sent.enter_context(made.path.open("rb"))
            except Refusal as refusal:
                metrics.answered(refusal.status)
                return answer(refusal)
            except ClientDisconnect:
                metrics.answered(499)
                return Response(status_code=499)
            metrics.answered(200)
            metrics.enlarged(name, made)
            headers = _headers(name, described[name].scale, made)
            close = until_sent.pop_all().close
            return FileContent(result, made.media_type, headers, limits.stall, close)

    @secured.get(
        "/progress/{id}", summary="How far a picture is", responses=failures(401, 404, 422)
    )
    async def progress(id: str) -> Progress:
        """Of a picture that was sent with this `id`, until its result is sent."""
        found = queue.progress(id)
        if found is None:
            raise Refusal(404, "no picture with this id is being worked on")
        return Progress(**found)

    @secured.get("/models", summary="The networks", responses=failures(401))
    async def list_models() -> list[ModelDescription]:
        """The first is taken where none is named."""
        return [
            ModelDescription(
                name=name, scale=each.scale, precision=each.precision, backend=each.backend
            )
            for name, each in described.items()
        ]

    @secured.get("/limits", summary="What is taken", responses=failures(401))
    async def tell_limits() -> Limited:
        """Pixels of a picture, all frames together, bytes of its file, pictures of one address at
        a time, and formats of results."""
        return Limited(
            pixels=limits.pixels,
            bytes=limits.bytes,
            per_client=limits.per_client,
            formats=list(formats),
        )

    @secured.get(
        "/metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}, **failures(401)},
    )
    async def tell_metrics() -> Response:
        """Answers by status, pixels, seconds, pictures at work, memory of the process."""
        return Response(metrics.text(), media_type=MEDIA_TYPE)

    app.include_router(secured)

    @app.get("/health", summary="Whether the service works", responses=failures())
    async def health() -> Health:
        """For operators and load balancers; needs no token."""
        return Health(status="ok", version=dvmsr.__version__)

    @app.get("/interface", include_in_schema=False)
    async def interface() -> HTMLResponse:
        return HTMLResponse(as_page(app.openapi()))

    for path, (content, kind) in site.files().items():
        app.add_api_route(
            path,
            partial(_static, content, kind),
            methods=["GET"],
            include_in_schema=False,
            response_model=None,
        )

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        return answer(refusal)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        if request.url.path == _ENLARGE:
            metrics.answered(422)
        first = error.errors()[0]
        where, message = ".".join(map(str, first["loc"][1:])), first["msg"]
        return answer(Refusal(422, f"{where}: {message[:1].lower()}{message[1:]}"))

    @app.exception_handler(HTTPException)
    async def no_such(request: Request, error: HTTPException) -> JSONResponse:
        response = answer(Refusal(error.status_code, f"{error.detail.lower()}; see /interface"))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return answer(Refusal(500, "the service failed; its log says why"))

    def refused_before(path: str, status: int) -> None:
        if path == _ENLARGE:
            metrics.answered(status)

    unsecured = {"/health", "/interface", "/openapi.json", *site.files()}
    return Guard(app, names, token, unsecured, refused_before)


def _static(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind)


def _written() -> dict[str, str]:
    """The formats that Pillow can write here, by their extensions, and their media types."""
    Image.init()
    first: dict[str, str] = {}
    for extension, format in FORMATS.items():
        if format in Image.SAVE and format not in first.values():
            first[extension[1:]] = format
    return {extension: Image.MIME[format] for extension, format in first.items()}


def _headers(model: str, scale: int, made: Enlarged) -> dict[str, str]:
    """What is told beside the picture; sizes are width and height in pixels."""
    values = (
        *(model.encode("ascii", "replace").decode(), str(scale)),
        *("{}x{}".format(*size) for size in (made.input_size, made.output_size)),
        *(f"{made.seconds:.2f}", warnings_header(made.warnings)),
    )
    return dict(zip(TOLD, values, strict=True))


async def _unless_gone(
    request: Request, queue: Queue, job: Job, work: partial[Enlarged]
) -> Enlarged:
    """The picture, unless its client goes before it is done: then the work stops.

    Raises:
        Refusal: as `Queue.run`.
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        job.stop(Refusal(499, "the client is gone"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            made = await queue.run(job, work)
        except Refusal as refusal:
            failure: Refusal | None = refusal
        else:
            failure = None
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return made
