"""The Python backend in a real server: pictures' files and tensors, over HTTP and gRPC."""

from __future__ import annotations

import io
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from small_model import random_pixels
from triton_requests import PROTOCOLS, ask, enlarge, picture_arrays
from triton_server import Server

from dvmsr.runtime import Upscaler, open_model
from dvmsr.runtime.images.rows import vips

pytestmark = pytest.mark.slow
HEIGHT, WIDTH = 20, 24


def _photo(**options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010F] = "A maker"
    return _encoded(Image.fromarray(random_pixels(HEIGHT, WIDTH)), "JPEG", exif=exif, quality=71)


def _encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _profiled() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    gray = Image.fromarray(random_pixels(HEIGHT, WIDTH)).convert("RGB")
    return _encoded(gray, "TIFF", icc_profile=profile, dpi=(300, 300))


PICTURES = {
    "rgb.png": lambda: _encoded(Image.fromarray(random_pixels(HEIGHT, WIDTH)), "PNG"),
    "turned.jpg": _photo,
    "transparent.png": lambda: _encoded(Image.fromarray(random_pixels(HEIGHT, WIDTH, 4)), "PNG"),
    "gray.bmp": lambda: _encoded(Image.fromarray(random_pixels(HEIGHT, WIDTH, 1)), "BMP"),
    "profiled.tif": _profiled,
    "moving.gif": lambda: _encoded(
        Image.fromarray(random_pixels(HEIGHT, WIDTH)),
        "GIF",
        save_all=True,
        append_images=[Image.fromarray(random_pixels(HEIGHT, WIDTH)[::-1])],
        duration=[100, 200],
    ),
}


def infer(folder: Path, name: str, data: bytes, *options: object) -> bytes:
    """What `dvmsr-infer` makes of a picture, in a process of its own."""
    (folder / name).write_bytes(data)
    program = Path(sys.executable).parent / "dvmsr-infer"
    words = [program, folder / name, "-o", folder / "out", *options]
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    (made,) = (folder / "out").iterdir()
    return made.read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_those_of_dvmsr_infer(
    name: str, protocol: str, server: Server, folder: Path
) -> None:
    data = PICTURES[name]()
    assert enlarge(server, data, protocol=protocol) == infer(folder, name, data)


@pytest.mark.skipif(not vips.installed(), reason="needs pyvips")
def test_16_bits_are_kept_as_by_dvmsr_infer(server: Server, folder: Path) -> None:
    deep = (random_pixels(HEIGHT, WIDTH, 1).astype(np.uint16) * 257) ^ 5
    data = _encoded(Image.fromarray(deep), "PNG")
    made = enlarge(server, data)
    assert made == infer(folder, "deep.png", data)
    with Image.open(io.BytesIO(made)) as image:
        assert image.mode == "I;16"


def test_format_and_quality(server: Server, folder: Path) -> None:
    data = PICTURES["rgb.png"]()
    made = enlarge(server, data, format="webp", quality=70)
    assert made == infer(folder, "a.png", data, "--format", "webp", "--quality", 70)


def test_what_is_not_kept_is_told(server: Server) -> None:
    arrays = picture_arrays(PICTURES["transparent.png"](), format="jpg")
    (told,) = ask(server, "student-pictures", arrays)["warnings"]
    assert told == b"the result: JPEG holds no transparency, which becomes white"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_of_any_size_and_batch(protocol: str, server: Server) -> None:
    """To the bit the pixels that `dvmsr-infer` writes."""
    upscaler = Upscaler.from_file("student")
    for height, width, batch in ((HEIGHT, WIDTH, 1), (7, 90, 2)):
        pixels = random_pixels(batch * height, width).reshape(batch, height, width, 3)
        planes = pixels.astype(np.float32) / np.float32(255)
        given = np.ascontiguousarray(planes.transpose(0, 3, 1, 2))
        made = ask(server, "student", {"input": given}, protocol)["output"]
        assert made.shape == (batch, 3, 4 * height, 4 * width)
        for one, image in zip(made, pixels, strict=True):
            rounded = np.rint(one.transpose(1, 2, 0) * np.float32(255)).astype(np.uint8)
            np.testing.assert_array_equal(rounded, upscaler(image))


def test_a_network_of_others_has_its_own_tensors(
    server: Server, exported: Callable[[str], Path]
) -> None:
    network = open_model(exported("gated"))
    (name,), batch = network.inputs, random_pixels(3, 7)
    given = np.ascontiguousarray(np.resize(batch, (3, 7, 8)) / np.float32(255), np.float32)
    made, expected = ask(server, "gated", {name: given}), network(**{name: given})
    assert made.keys() == expected.keys()
    for key in made:
        np.testing.assert_array_equal(made[key], expected[key])


def test_batches_of_a_network_of_others(server: Server, exported: Callable[[str], Path]) -> None:
    given = {"picture": np.random.default_rng(0).random((3, 3, 12, 9), np.float32)}
    made, expected = ask(server, "enlarge", given), open_model(exported("enlarge"))(**given)
    np.testing.assert_array_equal(made["output"], expected["output"])


def test_a_network_of_others_enlarges_pictures(
    server: Server, exported: Callable[[str], Path], folder: Path
) -> None:
    data = PICTURES["rgb.png"]()
    made = enlarge(server, data, "enlarge-pictures")
    assert made == infer(folder, "a.png", data, "--model", exported("enlarge"))


def test_one_that_enlarges_no_pictures_is_served_for_tensors_alone(server: Server) -> None:
    with server.client("http") as client:
        names = {model["name"] for model in client.get_model_repository_index()}
    assert names == {"student", "student-pictures", "gated", "enlarge", "enlarge-pictures"}


def test_every_model_has_computed_before_the_server_is_ready(server: Server) -> None:
    log = server.log.read_text()
    for model in ("student", "student-pictures", "gated", "enlarge", "enlarge-pictures"):
        assert f"model '{model}' instance {model}_0_0 is running warmup sample 'usual'" in log


def test_health_and_metrics(server: Server) -> None:
    enlarge(server, PICTURES["rgb.png"]())
    with server.client("grpc") as client:
        assert client.is_server_live() and client.is_model_ready("student-pictures")
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    counted = 'nv_inference_request_success{model="student-pictures",version="1"}'
    (line,) = [line for line in lines if line.startswith(counted)]
    assert float(line.split()[-1]) >= 1
