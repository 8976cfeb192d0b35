"""The OpenAPI description is true of what the service answers, to whatever Schemathesis sends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi.testclient import TestClient
from schemathesis.checks import positive_data_acceptance
from service import file_of, serving

TOKEN = "0123456789abcdef"
KNOWN = {"Authorization": f"Bearer {TOKEN}"}
EXCLUDED = [positive_data_acceptance]
"""That every bytes are accepted: no schema says what a picture is."""
SETTINGS = hypothesis.settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.mark.slow
def test_answers_are_as_described(model_files: list[Path]) -> None:
    """To what the description allows and to what it does not: no 500, and every status, type and
    body one that it tells; nothing without the token."""
    with serving("--model", model_files[0], DVMSR_TOKEN=TOKEN) as (url, _):
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=KNOWN)
        seen = set()

        def check(case: Any) -> None:
            response = case.call_and_validate(headers=KNOWN, excluded_checks=EXCLUDED)
            seen.add((case.path, response.status_code))

        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            for found in schema.get_all_operations():
                operation = found.ok()
                if mode.is_negative and not (operation.query or operation.path_parameters):
                    continue
                cases = operation.as_strategy(generation_mode=mode)
                SETTINGS(hypothesis.given(case=cases)(lambda case: check(case)))()
    assert {path for path, _ in seen} == set(schema.raw_schema["paths"])
    assert {("/enlarge", 415), ("/enlarge", 422), ("/progress/{id}", 404)} <= seen


def test_a_picture_is_as_described(client: Callable[..., TestClient]) -> None:
    service = client()
    schema = schemathesis.openapi.from_dict(service.get("/openapi.json").json())
    response = service.post("/enlarge", content=file_of(5, 5))
    schema["/enlarge"]["POST"].validate_response(schemathesis.Response.from_any(response))
