"""`dvmsr serve` as a process: full queues, clients that go, signals, wrong options."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from processes import LIMIT, wait_until
from service import file_of, serving

ENDLESS = {"model": "endless.onnx"}


@pytest.fixture
def service(model_files: list[Path], tmp_path: Path) -> Iterator[httpx.Client]:
    """With four places, three for a client."""
    models = [word for path in model_files for word in ("--model", path)]
    limits = ["--queue", 4, "--per-client", 3]
    with (
        serving(*models, *limits, TMPDIR=str(tmp_path)) as (url, _),
        httpx.Client(base_url=url, timeout=LIMIT) as client,
    ):
        yield client


def at_work(service: httpx.Client) -> int:
    """How many pictures are."""
    lines = service.get("/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("dvmsr_pictures ")).split()[1]))


def state(service: httpx.Client, id: str) -> str:
    found = service.get(f"/progress/{id}")
    return found.json()["state"] if found.status_code == 200 else ""


class Sent:
    """A picture that is sent to the endless network, on a connection of its own."""

    def __init__(self, service: httpx.Client, number: int, whole: bool = True) -> None:
        self.id = f"picture-{number:08}"
        url, body = service.base_url, file_of(4, 4)
        self._connection = socket.create_connection((url.host, url.port), LIMIT)
        self._connection.sendall(
            f"POST /enlarge?model=endless.onnx&id={self.id} HTTP/1.1\r\nHost: {url.host}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + (body if whole else body[:10])
        )

    def go(self) -> None:
        self._connection.close()

    def answer(self) -> str:
        """All that comes until the connection is closed."""
        with self._connection.makefile("rb") as stream:
            return stream.read().decode()


@pytest.mark.slow
def test_a_client_that_goes_stops_its_work(service: httpx.Client, tmp_path: Path) -> None:
    first, second, third = (Sent(service, number, number < 3) for number in (1, 2, 3))
    wait_until(lambda: state(service, first.id) == "computing")
    wait_until(lambda: state(service, second.id) == "waiting")
    wait_until(lambda: state(service, third.id) == "receiving")
    assert service.get(f"/progress/{second.id}").json()["before"] == 1
    assert at_work(service) == 3 and list(tmp_path.iterdir())
    for sent in (third, second, first):
        sent.go()
    wait_until(lambda: at_work(service) == 0)
    wait_until(lambda: not list(tmp_path.iterdir()))
    assert service.post("/enlarge", content=file_of(4, 4)).status_code == 200


@pytest.mark.slow
def test_more_than_there_are_places_for_is_told_when_to_come_back(service: httpx.Client) -> None:
    sent = [Sent(service, number) for number in range(3)]
    wait_until(lambda: at_work(service) == 3)
    response = service.post("/enlarge", content=file_of(4, 4))
    assert response.status_code == 429 and int(response.headers["retry-after"]) > 0
    # Through a proxy on this machine every client has its own address.
    forwarded = {"X-Forwarded-For": "192.0.2.1"}
    taken = service.post(
        "/enlarge", content=file_of(4, 4), headers=forwarded, params={"id": sent[0].id}
    )
    assert taken.status_code == 409
    with ThreadPoolExecutor(1) as others:
        waiting: Future[httpx.Response] = others.submit(
            service.post, "/enlarge", content=file_of(4, 4), headers=forwarded
        )
        wait_until(lambda: at_work(service) == 4)
        response = service.post(
            "/enlarge", content=file_of(4, 4), headers={"X-Forwarded-For": "192.0.2.2"}
        )
        assert response.status_code == 503 and int(response.headers["retry-after"]) > 0
        for each in sent:
            each.go()
        assert waiting.result().status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_it_in_order(model_files: list[Path], tmp_path: Path, name: str) -> None:
    models = [word for path in model_files for word in ("--model", path)]
    with (
        serving(*models, TMPDIR=str(tmp_path)) as (url, process),
        httpx.Client(base_url=url) as http,
    ):
        first, second = Sent(http, 1), Sent(http, 2)
        wait_until(lambda: state(http, first.id) == "computing")
        wait_until(lambda: state(http, second.id) == "waiting")
        http.close()
        number = getattr(signal, name)
        process.send_signal(number)
        for sent in (first, second):
            answer = sent.answer()
            assert answer.startswith("HTTP/1.1 503") and "the service is ending" in answer
        assert process.wait(LIMIT) == 128 + number
        assert process.stderr is not None
        told = process.stderr.read().splitlines()
        assert told[-1].endswith("; Ctrl-C ends") or told[-1] == "interrupted"
        assert "Traceback" not in "".join(told)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--host", "0.0.0.0"], 2, "--host 0.0.0.0 is reached from other machines"),
        (["--host", "nowhere.invalid"], 2, "--host nowhere.invalid is no address"),
        (["--host", "192.0.2.7", "--token", "x" * 16], 2, "--host 192.0.2.7 is no address"),
        (["--token", "short"], 2, "--token must have at least 16 characters"),
        (
            ["--allowed-host", "http://a.b/"],
            2,
            "--allowed-host http://a.b/ is more than the name of a host",
        ),
        (
            ["--allowed-host", "a.b:443"],
            2,
            "--allowed-host a.b:443 is more than the name of a host",
        ),
        (["--token", "x" * 15 + " y"], 2, "--token must have at least 16 characters"),
        (["--max-bytes", "much"], 2, "--max-bytes takes an amount of memory"),
        (["--model", "x"], 2, "no model named x"),
        (["--model", "student", "--model", "student"], 2, "two models are called student"),
    ],
)
def test_what_makes_no_sense(
    command: Callable[..., tuple[int, str, str]], arguments: list[str], code: int, sentence: str
) -> None:
    found, out, err = command("serve", "--port", 0, *arguments)
    assert found == code and not out
    assert err.startswith(f"error: {sentence}") and err.count("\n") == 1


def test_a_port_in_use_is_one_sentence(command: Callable[..., tuple[int, str, str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = command("serve", "--port", port)
    assert code == 1 and not out
    assert err.startswith(f"error: port {port} of 127.0.0.1 is in use") and err.count("\n") == 1


def test_a_missing_library_is_one_sentence(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("application", "server"):
        monkeypatch.delitem(sys.modules, f"dvmsr.runtime.serving.{name}", raising=False)
    from dvmsr.runtime import serving as room

    for name in ("application", "server"):
        monkeypatch.delattr(room, name, raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    code, out, err = command("serve")
    assert code == 4 and not out
    assert err == "error: dvmsr serve needs fastapi: pip install 'dvmsr[serve]'\n"


@pytest.mark.slow
def test_beyond_this_machine_it_wants_its_token(model_files: list[Path]) -> None:
    token = "0123456789abcdef"
    arguments = "--model", model_files[0], "--host", "0.0.0.0"
    with serving(*arguments, DVMSR_TOKEN=token) as (url, _):
        assert url.startswith("http://127.0.0.1:")
        assert httpx.post(f"{url}/enlarge", content=file_of(4, 4)).status_code == 401
        known = {"Authorization": f"Bearer {token}"}
        response = httpx.post(f"{url}/enlarge", content=file_of(4, 4), headers=known)
        assert response.status_code == 200
