"""`dvmsr serve --ray`: as a process with a Ray of its own and two replicas, and a replica without
Ray."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from processes import LIMIT, wait_until
from service import file_of, serving

from dvmsr.errors import DvmsrError
from dvmsr.runtime.infer.ray import Surroundings, WorkersModel
from dvmsr.runtime.serving.enlarging import Enlarged, Wish, enlarge
from dvmsr.runtime.serving.ray import Replica
from dvmsr.runtime.serving.refusals import Refusal
from dvmsr.utils.console import warnings_to

MOST_PIXELS = 5000
whole = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("ray", "grpc_reflection")),
        reason="needs ray[serve] (extra ray), not installed",
    ),
]
Service = tuple[httpx.Client, subprocess.Popen[str], Path]
Client = Callable[..., TestClient]


@pytest.fixture(scope="module")
def service(model_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With its process, and its folder for temporary files."""
    models = [word for path in model_files for word in ("--model", path)]
    folder = tmp_path_factory.mktemp("temporary")
    environment = {"TMPDIR": str(folder), "RAY_TMPDIR": "/tmp"}  # names of sockets must be short
    with (
        serving("--ray", "local", "--workers", 2, *models, **environment) as (url, process),
        httpx.Client(base_url=url, timeout=LIMIT) as client,
    ):
        yield client, process, folder


def below(process: subprocess.Popen[str]) -> dict[int, str]:
    """Processes that it has started, and those these have: numbers and command lines."""
    listed = subprocess.run(
        ["ps", "-eww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    found: dict[int, str] = {}
    parents = {process.pid}
    while parents:
        children = {int(row[0]): row[2] for row in rows if int(row[1]) in parents}
        found |= children
        parents = set(children)
    return found


def is_there(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def computing(service: httpx.Client, id: str) -> bool:
    found = service.get(f"/progress/{id}")
    return found.status_code == 200 and found.json()["state"] == "computing"


def send_endless(
    service: httpx.Client, senders: ThreadPoolExecutor, number: int
) -> Future[httpx.Response]:
    """A picture that is computed for ever; returns when it is."""
    query = {"model": "endless.onnx", "id": f"picture-{number:08}"}
    sent = senders.submit(service.post, "/enlarge", content=file_of(4, 4), params=query)
    wait_until(lambda: computing(service, query["id"]))
    return sent


class TestWhole:
    """One service; the last test ends it."""

    pytestmark = whole

    def test_results_are_those_of_this_process(self, service: Service, client: Client) -> None:
        here = client()
        for options in ({}, {"format": "jpg", "quality": "80"}):
            picture = file_of(70, 20, mode="RGBA")
            there = service[0].post("/enlarge", content=picture, params=options)
            expected = here.post("/enlarge", content=picture, params=options)
            assert there.status_code == 200 and there.content == expected.content
            for name in ("dvmsr-warnings", "dvmsr-output-size", "content-type"):
                assert there.headers[name] == expected.headers[name]
        assert service[0].get("/models").json() == here.get("/models").json()
        refused = service[0].post("/enlarge", content=file_of(40, 40)[:-900])
        assert refused.status_code == 422
        assert refused.json() == here.post("/enlarge", content=file_of(40, 40)[:-900]).json()

    def test_clients_that_go_leave_their_replicas_to_others(self, service: Service) -> None:
        http, body = service[0], file_of(4, 4)
        for id in ("picture-that-goes-1", "picture-that-goes-2"):
            with socket.create_connection((http.base_url.host, http.base_url.port)) as connection:
                connection.sendall(
                    f"POST /enlarge?model=endless.onnx&id={id} HTTP/1.1\r\n"
                    f"Host: {http.base_url.host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                wait_until(lambda id=id: computing(http, id))
        assert http.post("/enlarge", content=body).status_code == 200

    def test_lost_replicas_are_told_and_replaced(self, service: Service) -> None:
        before = set(service[2].iterdir())
        with ThreadPoolExecutor(2) as senders:
            sent = [send_endless(service[0], senders, number) for number in range(2)]  # at once
            # A folder of each here, and one of each when it is in its replica.
            wait_until(lambda: len(set(service[2].iterdir()) - before) == 4)
            for number, line in below(service[1]).items():
                if line.startswith("ray::ServeReplica:dvmsr-"):
                    os.kill(number, signal.SIGKILL)
            for each in sent:
                answer = each.result()
                assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
                assert answer.json()["error"].startswith("the machine that the picture was on")
        assert service[0].post("/enlarge", content=file_of(4, 4)).status_code == 200

    def test_a_signal_ends_it_with_its_ray(self, service: Service) -> None:
        http, process, folder = service
        with ThreadPoolExecutor(1) as senders:
            before = set(folder.iterdir())  # of replicas that were killed, if some were
            sent = send_endless(http, senders, 9)
            children = below(process)
            assert any("raylet" in line for line in children.values())
            process.send_signal(signal.SIGTERM)
            answer = sent.result()
        assert answer.status_code == 503 and "the service is ending" in answer.json()["error"]
        assert process.wait(LIMIT) == 128 + signal.SIGTERM
        assert process.stderr is not None
        told = process.stderr.read().splitlines()
        warning = told.pop(0)
        assert warning.startswith("warning: ") and "endless.onnx has its operators" in warning
        assert told[0].startswith("starting 2 replicas under Ray Serve, application dvmsr-")
        assert told[-1].endswith("; Ctrl-C ends") and "Traceback" not in "".join(told)
        wait_until(lambda: not any(map(is_there, children)))
        assert set(folder.iterdir()) == before


def replica(path: Path) -> Replica:
    model = WorkersModel(str(path), "auto", 1, None, None)
    return Replica({path.name: (model, Surroundings(None))})


def test_a_replica_answers_with_bytes_or_a_refusal(model_files: list[Path], client: Client) -> None:
    small = replica(model_files[0])
    wish = Wish(model_files[0].name)
    answer = asyncio.run(small.enlarge(file_of(9, 7), wish, MOST_PIXELS))
    assert isinstance(answer, tuple)
    made, data = answer
    assert data == client().post("/enlarge", content=file_of(9, 7)).content
    assert (made.path.name, made.input_size) == ("result.png", (7, 9))
    refusal = asyncio.run(small.enlarge(b"no picture", wish, MOST_PIXELS))
    again = pickle.loads(pickle.dumps(refusal))
    assert isinstance(again, Refusal) and again.status == 415
    assert again.sentence.startswith("the picture is not a PNG")


def test_a_replica_stops_what_is_cancelled(
    model_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings_to(lambda text: None):  # it has no native operators
        endless = replica(model_files[1])
    begun = threading.Event()

    def noted(*arguments: Any) -> Enlarged:
        begun.set()
        return enlarge(*arguments)

    monkeypatch.setattr("dvmsr.runtime.serving.ray.enlarge", noted)

    async def cancelled() -> None:
        work = asyncio.create_task(
            endless.enlarge(file_of(4, 4), Wish("endless.onnx"), MOST_PIXELS)
        )
        assert await asyncio.to_thread(begun.wait, LIMIT)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(cancelled())
    endless._thread.shutdown(wait=True)  # comes back


def test_a_replica_that_cannot_open_a_model_says_where(tmp_path: Path) -> None:
    with pytest.raises(DvmsrError, match=r"the worker on .* says: .*none\.onnx does not exist"):
        replica(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--workers", 2], 2, "--workers are those of a cluster; name it with --ray"),
        (["--ray", "head"], 2, "--ray must be auto, local or ray://host:port, not head"),
        (["--ray", "local"], 4, "--ray needs ray: pip install 'dvmsr[ray]'"),
    ],
    ids=["no cluster", "address", "not installed"],
)
def test_what_makes_no_sense(
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    found, out, err = command("serve", "--port", 0, *arguments)
    assert (found, out, err) == (code, "", f"error: {sentence}\n")
