"""The HTTP interface: the results of dvmsr-infer, and what bad requests get."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageCms
from prometheus_client.parser import text_string_to_metric_families
from service import file_of

Client = Callable[..., TestClient]


def error(response: object) -> tuple[int, str]:
    """Status and sentence, which is no text of a traceback."""
    sentence = response.json()["error"]  # type: ignore[attr-defined]
    assert sentence and "\n" not in sentence and "Traceback" not in sentence
    assert tempfile.gettempdir() not in sentence
    return response.status_code, sentence  # type: ignore[attr-defined]


def with_all_that_a_file_holds() -> bytes:
    """A JPEG with an orientation, a comment, a profile and a quality of its own."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a cat"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(file_of(20, 30))) as image:
        image.save(buffer, "JPEG", quality=63, exif=exif, icc_profile=profile, dpi=(200, 200))
    return buffer.getvalue()


def animation() -> bytes:
    frames = [Image.open(io.BytesIO(file_of(9, height + 8))).resize((9, 8)) for height in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=[20, 40, 60])
    return buffer.getvalue()


def deep() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 65536, (12, 14), np.uint16)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = {
    "strips.png": file_of(70, 20),
    "held.jpg": with_all_that_a_file_holds(),
    "alpha.png": file_of(10, 12, mode="RGBA"),
    "gray.webp": file_of(10, 12, "WEBP", "L"),
    "moving.gif": animation(),
    "deep.png": deep(),
    "flat.bmp": file_of(7, 5, "BMP"),
    "page.tif": file_of(7, 5, "TIFF"),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(
    "options",
    [{}, {"format": "png"}, {"format": "webp", "quality": "70", "to_srgb": "true"}],
    ids=["as it is", "png", "webp"],
)
def test_results_are_those_of_dvmsr_infer(
    client: Client,
    infer: Callable[..., int],
    model_files: list[Path],
    tmp_path: Path,
    name: str,
    options: dict[str, str],
) -> None:
    source = tmp_path / name
    source.write_bytes(PICTURES[name])
    target = tmp_path / f"out.{options.get('format') or name.rpartition('.')[2]}"
    arguments = ["--to-srgb"] if "to_srgb" in options else []
    if "quality" in options:
        arguments += ["--quality", options["quality"]]
    assert infer(source, "-o", target, "--model", model_files[0], "--threads", 1, *arguments) == 0
    response = client().post("/enlarge", content=PICTURES[name], params=options)
    assert response.status_code == 200
    assert response.content == target.read_bytes()
    with Image.open(io.BytesIO(response.content)) as image:
        assert response.headers["content-type"] == Image.MIME[str(image.format)]
        assert response.headers["dvmsr-output-size"] == f"{image.width}x{image.height}"
    assert response.headers["dvmsr-model"] == "small.onnx"


def test_tells_what_a_format_does_not_hold(client: Client) -> None:
    response = client().post("/enlarge", content=PICTURES["alpha.png"], params={"format": "jpg"})
    assert json.loads(response.headers["dvmsr-warnings"]) == [
        "the result: JPEG holds no transparency, which becomes white"
    ]


CASES = {
    "not a picture": (b"no picture", {}, 415, "the picture is not a PNG, JPEG, "),
    "empty": (b"", {}, 422, "the picture is empty"),
    "truncated": (file_of(40, 40)[:-900], {}, 422, "the picture is damaged or truncated"),
    "damaged head": (file_of(9, 9)[:20] + b"x", {}, 422, "the picture is damaged"),
    "too many pixels": (file_of(51, 99), {}, 413, "the picture has 5,049 pixels"),
    "too many bytes": (bytes(200_001), {}, 413, "the picture's file has more than 195.3 KiB"),
    "no such model": (file_of(4, 4), {"model": "x"}, 422, "model: input should be"),
    "a path": (file_of(4, 4), {"model": "../small.onnx"}, 422, "model: input should be"),
    "no such format": (file_of(4, 4), {"format": "exe"}, 422, "format: input should be"),
    "quality": (file_of(4, 4), {"quality": "101"}, 422, "quality: input should be less"),
    "quality of a PNG": (
        *(file_of(4, 4), {"quality": "50"}, 422),
        "quality is of JPEG, WebP and AVIF, not of PNG; leave it out",
    ),
    "twice": (file_of(4, 4), {"format": ["png", "jpg"]}, 422, "format is given 2 times; give it"),
    "misspelt": (file_of(4, 4), {"modle": "x"}, 422, "modle: extra inputs are not permitted"),
    "id": (file_of(4, 4), {"id": "short"}, 422, "id: string should match"),
    "frames": (animation(), {"format": "jpg"}, 422, "the picture has 3 frames, which JPEG cannot"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_requests_get_a_sentence(client: Client, case: str) -> None:
    content, query, status, sentence = CASES[case]
    found, said = error(client().post("/enlarge", content=content, params=query))
    assert (found, said[: len(sentence)]) == (status, sentence)
    assert "--" not in said and "-o" not in said.split()


def test_a_claim_of_many_pixels_is_refused_before_they_are_decoded(client: Client) -> None:
    """In the header of a PNG of a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", compress(bytes(1000))), chunk(b"IEND", b"")
    response = client().post("/enlarge", content=b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    status, sentence = error(response)
    assert status == 413 and sentence.startswith("the picture has 3,600,000,000 pixels")


def test_pages_of_all_sizes_count(client: Client) -> None:
    pages = [Image.new("RGB", size) for size in ((10, 10), (71, 71))]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    assert error(client().post("/enlarge", content=buffer.getvalue()))[0] == 413


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({"Content-Type": "multipart/form-data; boundary=x"}, "the body is a form"),
        ({"Content-Encoding": "gzip"}, "the body is compressed"),
    ],
)
def test_other_bodies_than_pictures(client: Client, headers: dict[str, str], sentence: str) -> None:
    status, said = error(client().post("/enlarge", content=file_of(4, 4), headers=headers))
    assert status == 415 and said.startswith(sentence)


def test_a_body_without_a_length_is_bounded_while_it_is_read(client: Client) -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            sent.append(1)
            yield bytes(1000)

    assert error(client().post("/enlarge", content=endless()))[0] == 413
    body = file_of(9, 9)
    assert client().post("/enlarge", content=iter([body[:50], body[50:]])).status_code == 200


def test_a_picture_that_takes_too_long_is_given_up(client: Client) -> None:
    limited = client(seconds=0.3)
    response = limited.post("/enlarge", content=file_of(4, 4), params={"model": "endless.onnx"})
    status, sentence = error(response)
    assert status == 503 and "retry-after" not in response.headers  # that would be no use
    assert sentence.startswith("the picture was given up after 0.3 seconds")
    assert limited.post("/enlarge", content=file_of(4, 4)).status_code == 200


def test_no_progress_of_what_is_not_there(client: Client) -> None:
    assert error(client().get("/progress/0123456789abcdef")) == (
        404,
        "no picture with this id is being worked on",
    )


def test_tells_models_and_limits(client: Client) -> None:
    service = client()
    assert [(each["name"], each["scale"]) for each in service.get("/models").json()] == [
        ("small.onnx", 2),
        ("endless.onnx", 2),
    ]
    limits = service.get("/limits").json()
    assert (limits["pixels"], limits["bytes"], limits["per_client"]) == (5000, 200_000, 3)
    assert {"png", "jpg", "webp", "tif", "bmp", "gif"} <= set(limits["formats"])
    assert service.get("/health").json()["status"] == "ok"


def test_numbers_for_prometheus(client: Client) -> None:
    service = client()
    service.post("/enlarge", content=file_of(4, 6))
    service.post("/enlarge", content=b"x")
    service.post("/enlarge", content=b"x", params={"model": "x"})
    service.post("/enlarge", content=b"x", headers={"Origin": "http://attacker.example"})
    service.get("/models", headers={"Origin": "http://attacker.example"})
    families = text_string_to_metric_families(service.get("/metrics").text)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples["dvmsr_answers_total", "200"] == 1
    assert samples["dvmsr_answers_total", "415"] == samples["dvmsr_answers_total", "422"] == 1
    assert samples["dvmsr_answers_total", "403"] == 1
    assert samples["dvmsr_input_pixels_total", "small.onnx"] == 24
    assert samples["dvmsr_network_seconds_count", "small.onnx"] == 1
    assert samples["dvmsr_pictures",] == 0 and samples["dvmsr_places",] == 4


def test_unknown_paths_and_methods_get_a_sentence(client: Client) -> None:
    service = client()
    assert error(service.get("/nowhere")) == (404, "not found; see /interface")
    response = service.get("/enlarge")
    assert error(response) == (405, "method not allowed; see /interface")
    assert response.headers["allow"] == "POST"


def test_nothing_is_kept(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    service = client()
    assert service.post("/enlarge", content=file_of(30, 30)).status_code == 200
    assert service.post("/enlarge", content=file_of(30, 30)[:-300]).status_code == 422
    assert not list(tmp_path.iterdir())
