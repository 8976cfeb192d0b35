from __future__ import annotations

import hashlib
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, serving

from dvmsr.errors import DvmsrError
from dvmsr.utils import download

CONTENT = bytes(range(256)) * 1200
"""More than four blocks."""


@pytest.fixture(autouse=True)
def at_once_and_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(CONTENT) as told:
        yield told


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "file.bin"


def remote(server: FileServer, content: bytes = CONTENT) -> download.Remote:
    digest = hashlib.sha256(content).hexdigest()
    return download.Remote(f"{server.address}/file.bin", len(content), digest)


def part(target: Path) -> Path:
    return target.with_name("file.bin.part")


def refused(server: FileServer, target: Path, content: bytes = CONTENT) -> str:
    """What is said; there is no file then."""
    with pytest.raises(DvmsrError) as caught:
        download.fetch(remote(server, content), target)
    assert caught.value.exit_code == 1 and not target.exists()
    text = str(caught.value)
    assert text.startswith(f"{server.address}/file.bin ") and str(target) in text
    return text


def starts(server: FileServer) -> list[str | None]:
    return [asked for _, asked in server.asked]


def test_a_file_arrives_whole_and_alone(server: FileServer, target: Path) -> None:
    download.fetch(remote(server), target)
    assert target.read_bytes() == CONTENT
    assert {path.name for path in target.parent.iterdir()} == {"file.bin", ".lock"}
    download.fetch(remote(server), target)
    assert server.asked == [("/file.bin", None)]


@pytest.mark.parametrize("declares", [True, False])
def test_goes_on_where_it_broke_off(server: FileServer, target: Path, declares: bool) -> None:
    server.cuts, server.declares = [100_000, 0, 70_000, 1], declares
    download.fetch(remote(server), target)
    assert target.read_bytes() == CONTENT
    assert starts(server) == [
        *(None, "bytes=100000-", "bytes=100000-", "bytes=170000-", "bytes=170001-")
    ]


def test_the_next_command_goes_on(server: FileServer, target: Path) -> None:
    server.cuts = [100_000, 0, 0, 0, 0]
    assert "(the connection was closed too early); check the network" in refused(server, target)
    assert part(target).read_bytes() == CONTENT[:100_000]
    server.cuts = []
    download.fetch(remote(server), target)
    assert target.read_bytes() == CONTENT and not part(target).exists()
    assert starts(server)[-1] == "bytes=100000-"


def test_begins_anew_where_the_server_cannot_go_on(server: FileServer, target: Path) -> None:
    server.ranges, server.cuts = False, [100_000]
    download.fetch(remote(server), target)
    assert target.read_bytes() == CONTENT and len(server.asked) == 2


@pytest.mark.parametrize("left", [b"another beginning", CONTENT + b"more", CONTENT[::-1]])
def test_what_another_left_does_not_stay(server: FileServer, target: Path, left: bytes) -> None:
    target.parent.mkdir()
    part(target).write_bytes(left)
    target.write_bytes(b"damaged")
    download.fetch(remote(server), target)
    assert target.read_bytes() == CONTENT and not part(target).exists()


def test_what_was_complete_is_not_fetched_again(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    part(target).write_bytes(CONTENT)
    download.fetch(remote(server), target)
    assert target.read_bytes() == CONTENT and not server.asked


def test_is_sent_elsewhere(server: FileServer, target: Path) -> None:
    server.redirects = 2
    download.fetch(remote(server), target)
    assert target.read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/file.bin", "/elsewhere", "/elsewhere"]


def test_is_sent_in_circles(server: FileServer, target: Path) -> None:
    server.redirects = 1000
    text = refused(server, target)
    assert "(the answer is 302 " in text and "\n" not in text and len(server.asked) < 20


@pytest.mark.parametrize(
    ("status", "times", "answer"), [(404, 1, "404 Not Found"), (503, 4, "503 Service Unavailable")]
)
def test_what_is_not_there(
    server: FileServer, target: Path, status: int, times: int, answer: str
) -> None:
    server.status = status
    assert f"cannot be fetched (the answer is {answer}); check" in refused(server, target)
    assert len(server.asked) == times


@pytest.mark.parametrize("declares", [True, False])
@pytest.mark.parametrize("sent", [CONTENT[::-1], CONTENT + b"more", b"<html>Log in</html>"])
def test_another_file(server: FileServer, target: Path, sent: bytes, declares: bool) -> None:
    server.content, server.declares = sent, declares
    text = refused(server, target)
    if declares or len(sent) >= len(CONTENT):
        assert "is answered with another file than expected" in text and len(server.asked) == 1
        server.content = CONTENT
        download.fetch(remote(server), target)
        assert target.read_bytes() == CONTENT


def test_a_shorter_file_at_a_server_that_goes_on(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    part(target).write_bytes(CONTENT[:1000])
    server.content = CONTENT[:500]
    assert "another file than expected" in refused(server, target)
    assert starts(server) == ["bytes=1000-", None]


def test_no_network(server: FileServer, target: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server.address = f"http://127.0.0.1:{free.getsockname()[1]}"
        text = refused(server, target)
    assert "(Connection refused); check the network and HTTPS_PROXY and try again" in text


def test_a_server_that_says_nothing(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    server.stops_after = 1000
    download.fetch(remote(server), target)
    assert target.read_bytes() == CONTENT and starts(server) == [None, "bytes=1000-"]


def test_by_a_proxy(server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", server.address)
    there = download.Remote(
        "http://far.invalid/file.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()
    )
    download.fetch(there, target)
    assert target.read_bytes() == CONTENT
    assert server.asked == [("http://far.invalid/file.bin", None)]
    monkeypatch.setenv("http_proxy", "http://no number:x")
    target.unlink()
    with pytest.raises(DvmsrError, match=r"far\.invalid/file\.bin cannot be fetched"):
        download.fetch(there, target)


def test_of_two_one_fetches(
    server: FileServer, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.stops_after = 1000
    first, second = (
        threading.Thread(target=download.fetch, args=(remote(server), target)) for _ in "ab"
    )
    first.start()
    assert server.stopped.wait(60)
    second.start()
    while "another process" not in capsys.readouterr().err:
        assert second.is_alive()
    server.go_on.set()
    for thread in (first, second):
        thread.join()
    assert target.read_bytes() == CONTENT and len(server.asked) == 1


def test_a_full_disk(server: FileServer, target: Path) -> None:
    """A limit on the size of files fails in mid-write like one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DvmsrError) as caught:
            download.fetch(remote(server), target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert str(caught.value) == (
        f"{target.parent} cannot be written (File too large); make room or set XDG_CACHE_HOME to "
        "another place"
    )
    assert not target.exists()
    download.fetch(remote(server), target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("blocked", ["a file in place of the folder", "a folder in place of it"])
def test_where_nothing_can_be_written(server: FileServer, target: Path, blocked: str) -> None:
    if "in place of the folder" in blocked:
        target.parent.touch()
    else:
        part(target).mkdir(parents=True)
    with pytest.raises(DvmsrError) as caught:
        download.fetch(remote(server), target)
    text = str(caught.value)
    assert text.startswith(f"{target.parent} cannot be written (")
    assert text.endswith("); set XDG_CACHE_HOME to another place") and os.linesep not in text
