"""What the HTTP interface answers, for its OpenAPI description."""

from typing import Any

from pydantic import BaseModel, Field

BINARY = {"schema": {"type": "string", "format": "binary"}}
TOLD = (
    *("Dvmsr-Model", "Dvmsr-Scale", "Dvmsr-Input-Size", "Dvmsr-Output-Size", "Dvmsr-Seconds"),
    "Dvmsr-Warnings",
)
"""Headers beside a picture."""


class Failure(BaseModel):
    """What is told where there is no result."""

    error: str
    """One sentence."""


class ModelDescription(BaseModel):
    """A network."""

    name: str
    scale: int
    """How many times larger each side becomes."""
    precision: str
    backend: str


class Limited(BaseModel):
    """What is taken."""

    pixels: int
    bytes: int
    per_client: int
    formats: list[str]


class Progress(BaseModel):
    """How far a picture is."""

    state: str = Field(examples=["receiving", "waiting", "computing", "sending"])
    before: int
    """Pictures that come first."""
    done: int
    """Rows."""
    of: int | None
    """All rows; null before the first are done."""


class Health(BaseModel):
    """Of the service."""

    status: str
    version: str


_STATUS = {
    401: "Without the right token",
    403: "From another page in a browser",
    404: "There is none",
    408: "The picture came too slowly",
    409: "A picture with this id is being worked on",
    413: "Too many bytes or pixels, or too much memory",
    415: "Not a picture of a format that is read; a form; a compressed body",
    421: "By another name than the service's",
    422: "The picture is damaged, or the query makes no sense",
    429: "Too many pictures from one address at a time",
    500: "The network failed",
    503: "Too many pictures at a time, the service is ending, or the picture took too long",
}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Descriptions of answers with these statuses, and those that every request can have."""
    return {
        status: {"model": Failure, "description": _STATUS[status]}
        for status in sorted({*statuses, 403, 421})
    }
