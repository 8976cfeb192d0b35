"""Other pages, other names and unknown clients get nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from service import file_of

from dvmsr.runtime.serving import site
from dvmsr.runtime.serving.guard import without_port

Client = Callable[..., TestClient]
TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8000", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8000", 200),
        ("attacker.example", 421),
        ("attacker.example:8000", 421),
        ("127.0.0.1.attacker.example", 421),
        ("127.0.0.1@attacker.example", 421),
        ("", 421),
    ],
)
def test_answers_by_its_own_names_alone(client: Client, host: str, status: int) -> None:
    service = client(names={"127.0.0.1", "localhost", "[::1]"})
    response = service.post("/enlarge", content=file_of(4, 4), headers={"Host": host})
    assert response.status_code == status
    assert service.get("/", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1"}, 200),
        ({"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://127.0.0.1:9"}, 403),
        ({"Origin": "http://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        (
            {
                "Origin": "http://attacker.example",
                "Sec-Fetch-Site": "cross-site",
                "Sec-Fetch-Mode": "navigate",
            },
            403,
        ),
    ],
)
def test_answers_to_no_other_page(client: Client, headers: dict[str, str], status: int) -> None:
    response = client().post("/enlarge", content=file_of(4, 4), headers=headers)
    assert response.status_code == status
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("path", ["/", "/health", "/openapi.json"])
def test_who_asks_for_a_head_gets_one(client: Client, path: str) -> None:
    assert client().head(path).status_code == 200


def test_a_link_from_another_page_opens_ours(client: Client) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client().get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
    ],
)
def test_without_the_token_there_is_nothing(client: Client, given: str | None, status: int) -> None:
    service = client(token=TOKEN)
    headers = {} if given is None else {"Authorization": given}
    for path in ("/models", "/limits", "/metrics"):
        assert service.get(path, headers=headers).status_code == status
    response = service.post("/enlarge", content=file_of(4, 4), headers=headers)
    assert response.status_code == status
    assert (response.headers.get("www-authenticate") == "Bearer") == (status == 401)
    for path in ("/health", "/interface", "/openapi.json", *site.files()):
        assert service.get(path).status_code == 200


def test_every_answer_forbids_a_browser_what_the_page_does_not_need(client: Client) -> None:
    service = client(names={"127.0.0.1"})
    answers = [service.get("/"), service.get("/nowhere"), service.post("/enlarge", content=b"x")]
    answers.append(service.get("/", headers={"Host": "attacker.example"}))
    for response in answers:
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("host", "name"),
    [("a:1", "a"), ("a", "a"), ("[::1]:8", "[::1]"), ("[::1]", "[::1]"), ("", ""), ("a:", "a:")],
)
def test_without_port(host: str, name: str) -> None:
    assert without_port(host) == name
