"""What a server meets: many clients, bad input, clients that go, new models, and its end."""

from __future__ import annotations

import io
import signal
import socket
import struct
import threading
import urllib.request
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import LIMIT, wait_until
from small_model import random_pixels
from triton_requests import PROTOCOLS, ask, enlarge, inputs, picture_arrays
from triton_server import Installation, Server, triton_serving

from dvmsr.export.triton.export import export_triton
from dvmsr.export.triton.layout import Request
from dvmsr.runtime import Upscaler

pytestmark = pytest.mark.slow
PICTURES, CLIENTS = "student-pictures", 32


def png(height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random_pixels(height, width)).save(buffer, "PNG")
    return buffer.getvalue()


def claimed(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def refusal(
    server: Server, protocol: str, model: str, arrays: dict[str, Any], good: str = PICTURES
) -> str:
    """What the server says of a bad request; afterwards it answers a good one, to the model `good`,
    in the process that it had before."""
    from tritonclient.utils import InferenceServerException

    before = server.children()
    with pytest.raises(InferenceServerException) as refused:
        ask(server, model, arrays, protocol)
    assert str(refused.value.status()) in ("400", "StatusCode.INVALID_ARGUMENT")
    assert enlarge(server, png(4, 5), good) and server.children() == before
    return str(refused.value.message())


def test_many_clients_with_pictures_of_many_sizes(server: Server) -> None:
    upscaler = Upscaler.from_file("student")
    sizes = [(6, 9), (16, 16), (30, 11)]
    expected = [upscaler(random_pixels(*size)) for size in sizes]
    all_there = threading.Barrier(CLIENTS)

    def client(number: int) -> None:
        protocol, which = PROTOCOLS[number % 2], number % len(sizes)
        all_there.wait(LIMIT)
        for _ in range(2):
            made = enlarge(server, png(*sizes[which]), protocol=protocol)
            with Image.open(io.BytesIO(made)) as image:
                np.testing.assert_array_equal(np.asarray(image), expected[which])

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the picture is empty; get a complete copy of it"),
        (b"no picture", "the picture is not a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF image"),
        (png(40, 40)[:-900], "the picture is damaged or truncated; get a complete copy of it"),
        (
            claimed(30_000, 30_000),
            "the picture has 900,000,000 pixels, and the service takes at most 16,000,000",
        ),
        (
            claimed(5000, 4000),
            "the picture has 20,000,000 pixels, and the service takes at most 16,000,000",
        ),
    ],
    ids=["empty", "text", "truncated", "bomb", "large"],
)
def test_bad_pictures(data: bytes, said: str, protocol: str, server: Server) -> None:
    told = refusal(server, protocol, PICTURES, picture_arrays(data))
    assert said in told and "Traceback" not in told and "\n" not in told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "docx"}, "format must be one of png, "),
        ({"format": "\0"}, "format must be one of png, "),
        ({"format": "mp4"}, "format must be one of png, "),
        ({"quality": 0}, "quality must be from 1 to 100, not 0"),
        ({"quality": 50, "format": "png"}, "quality is of JPEG, WebP and AVIF, not of PNG"),
    ],
)
def test_bad_options(options: dict[str, Any], said: str, server: Server) -> None:
    assert said in refusal(server, "http", PICTURES, picture_arrays(png(4, 5), **options))


@pytest.mark.parametrize(
    ("shape", "value", "said"),
    [
        ((1, 4, 5, 5), 0.5, "shape"),
        ((1, 3, 5, 5), 2.0, "the image's values must be numbers in [0, 1]"),
        ((1, 3, 5, 5), np.nan, "the image's values must be numbers in [0, 1]"),
        ((1, 3, 0, 5), 0.5, "the image has no pixels"),
    ],
    ids=["channels", "bright", "nan", "empty"],
)
def test_bad_tensors(shape: tuple[int, ...], value: float, said: str, server: Server) -> None:
    arrays = {"input": np.full(shape, value, np.float32)}
    assert said in refusal(server, "http", "student", arrays)


def test_a_bad_shape_for_a_network_of_others(server: Server) -> None:
    with server.client("http") as client:
        (port,) = client.get_model_metadata("gated")["inputs"]
    arrays = {port["name"]: np.zeros((1, 4, 5), np.float32)}
    assert "shape" in refusal(server, "http", "gated", arrays)


def test_clients_that_go(server: Server) -> None:
    from tritonclient.utils import InferenceServerException

    before = server.children()
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(
            b"POST /v2/models/student-pictures/infer HTTP/1.1\r\nContent-Length: 999\r\n\r\n{"
        )
    answered: list[Any] = []

    def answer(result: Any, error: Any) -> None:
        answered.append(error)

    with server.client("grpc") as client:
        for _ in range(2):  # the second waits for the first
            asked = inputs("grpc", picture_arrays(png(200, 200)))
            call = client.async_infer(PICTURES, asked, answer)
        call.cancel()
        wait_until(lambda: len(answered) == 2)
    assert any(isinstance(error, InferenceServerException) for error in answered)
    assert enlarge(server, png(4, 5)) and server.children() == before


def repository(folder: Path, model: str = "student", **options: Any) -> Path:
    """One with that model as `net`, and `net-pictures`."""
    export_triton([model], folder, Request(folder), "python", "net", **options)
    return folder


def test_a_model_is_replaced_while_the_server_runs(triton: Installation, tmp_path: Path) -> None:
    models = repository(tmp_path / "models")
    explicit = ("--model-control-mode=explicit", "--load-model=net-pictures")
    with triton_serving(triton, models, tmp_path / "log", *explicit) as server:
        assert side(enlarge(server, png(4, 5), "net-pictures")) == 20
        repository(models, "student-x2", overwrite=True)
        assert side(enlarge(server, png(4, 5), "net-pictures")) == 20
        with server.client("http") as client:
            client.load_model("net-pictures")
        assert side(enlarge(server, png(4, 5), "net-pictures")) == 10


def test_the_largest_size_is_a_setting(triton: Installation, tmp_path: Path) -> None:
    models = repository(tmp_path / "models")
    for config in models.glob("*/config.pbtxt"):
        config.write_text(config.read_text().replace('"16000000"', '"4096"'))  # the warm-up's
    with triton_serving(triton, models, tmp_path / "log") as server:
        arrays = {"input": np.zeros((1, 3, 64, 65), np.float32)}
        said = refusal(server, "http", "net", arrays, "net-pictures")
        assert "input has 65x64 pixels, and the service takes at most 4,096" in said
        arrays = picture_arrays(png(64, 65))
        said = refusal(server, "http", "net-pictures", arrays, "net-pictures")
        assert "the picture has 4,160 pixels, and the service takes at most 4,096" in said


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_room_is_the_server_s_fault(
    protocol: str, triton: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client may try again: the folder for temporary files is gone for a while."""
    from tritonclient.utils import InferenceServerException

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    models = repository(tmp_path / "models")
    with triton_serving(triton, models, tmp_path / "log") as server:
        scratch.rmdir()
        with pytest.raises(InferenceServerException) as refused:
            enlarge(server, png(4, 5), "net-pictures", protocol)
        assert str(refused.value.status()) in ("503", "StatusCode.UNAVAILABLE")
        assert "(No such file or directory); check the path" in refused.value.message()
        scratch.mkdir()
        assert side(enlarge(server, png(4, 5), "net-pictures", protocol)) == 20


def side(data: bytes) -> int:
    """The width of a picture."""
    with Image.open(io.BytesIO(data)) as image:
        return image.width


def test_the_end_waits_for_answers(triton: Installation, tmp_path: Path) -> None:
    """SIGTERM: requests that are there are answered, and processes and temporary files gone."""
    models, scratch = repository(tmp_path / "models"), tmp_path / "scratch"
    scratch.mkdir()
    with (
        pytest.MonkeyPatch.context() as patch,
        ThreadPoolExecutor(3) as pool,
    ):
        patch.setenv("TMPDIR", str(scratch))
        with triton_serving(triton, models, tmp_path / "log") as server:
            children = server.children()
            assert children
            asked = [
                pool.submit(enlarge, server, png(150, 150), "net-pictures", protocol)
                for protocol in ("http", "grpc", "http")
            ]
            wait_until(lambda: has_arrived(server, "net-pictures", 3))
            assert server.is_ready()
            server.process.send_signal(signal.SIGTERM)
            assert [side(answer.result(LIMIT)) for answer in asked] == [600] * 3
            assert server.process.wait(LIMIT) == 0
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert not list(scratch.glob("dvmsr-*"))


def has_arrived(server: Server, model: str, count: int) -> bool:
    """Whether so many requests wait or are computed."""
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    pending = f'nv_inference_pending_request_count{{model="{model}",version="1"}} '
    waiting = sum(float(line.split()[-1]) for line in lines if line.startswith(pending))
    return waiting >= count - 1  # one is computed


def test_a_model_that_cannot_be_loaded_says_why(triton: Installation, tmp_path: Path) -> None:
    models = repository(tmp_path / "models")
    (file,) = (models / "net" / "1").glob("*.onnx")
    file.write_bytes(b"damaged")
    with triton_serving(
        triton, models, tmp_path / "log", "--exit-on-error=false", "--strict-readiness=0"
    ) as server:
        assert side(enlarge(server, png(4, 5), "net-pictures")) == 20
    assert "is no ONNX file or damaged; export one with" in (tmp_path / "log").read_text()


def test_instances_share_the_work(
    triton: Installation, tmp_path: Path, exported: Callable[[str], Path]
) -> None:
    models = tmp_path / "models"
    export_triton([str(exported("gated"))], models, Request(models, instances=2), "python")
    with triton_serving(triton, models, tmp_path / "log") as server:
        assert len(server.children()) == 2
