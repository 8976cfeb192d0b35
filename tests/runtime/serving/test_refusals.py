"""Failures as statuses and sentences that make sense to who is not at the service's terminal."""

from __future__ import annotations

import errno

import pytest

from dvmsr.errors import DvmsrError, IncompatibleModelError, ResourceError
from dvmsr.runtime.images.decode import TooManyPixels, UnknownFormat
from dvmsr.runtime.memory import NotEnoughMemory
from dvmsr.runtime.serving.refusals import refusal_of, told

NAMES = {"/tmp/x/picture": "the picture", "/models/m.onnx": "the model"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("/tmp/x/picture is damaged; get a copy", "the picture is damaged; get a copy"),
        ("/tmp/x/picture is long; choose PNG with -o", "the picture is long; choose PNG"),
        ("a picture has pages; --format tif", "a picture has pages"),
        ("it needs pyvips; pip install 'dvmsr[large]'", "it needs pyvips"),
        ("8 bits; dvmsr-infer keeps them from file to file", "8 bits"),
        ("/models/m.onnx is odd; export it again", "the model is odd"),
        ("one; two; export it with --streaming", "one; two"),
        ("half-tone; a well-known remedy", "half-tone; a well-known remedy"),
    ],
)
def test_sentences_name_neither_options_nor_paths(text: str, sentence: str) -> None:
    assert told(text, NAMES) == sentence


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (TooManyPixels("x"), 413, False),
        (NotEnoughMemory("x"), 413, False),
        (UnknownFormat("x"), 415, False),
        (IncompatibleModelError("x"), 422, False),
        (DvmsrError("x"), 500, False),
        (PermissionError(errno.EACCES, "no", "/tmp/x/picture"), 500, False),
        (OSError(errno.ENOSPC, "full"), 503, True),
        (MemoryError(), 503, True),
        (ResourceError("x"), 503, True),
    ],
)
def test_kinds_of_failures_have_statuses(
    error: DvmsrError | OSError | MemoryError, status: int, again: bool
) -> None:
    refusal = refusal_of(error, NAMES, 500)
    assert refusal.status == status
    assert (refusal.retry_after is not None) == again
    assert "/tmp" not in refusal.sentence
