from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from clips import gif_of_tiny_frames
from small_model import ONNX_BACKENDS, Models

from dvmsr.config import PRESETS, DVMSRConfig
from dvmsr.errors import DvmsrError
from dvmsr.runtime import Upscaler, memory


@pytest.fixture(scope="module")
def file_of_parts(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As files were before there were mixers, and as other tools write them out."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx.inliner")
    written_out = [("dvmsr", "MambaMixer"), ("dvmsr", "Conv3x3")]
    model = onnx.inliner.inline_selected_functions(onnx.load(models.onnx), written_out)
    path = tmp_path_factory.mktemp("parts") / "parts.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("in_parts", [False, True], ids=["mixers", "parts"])
@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_the_estimate_is_above_the_peak(
    models: Models, file_of_parts: Path, backend: str, in_parts: bool
) -> None:
    """And not four times too high, for the increase of the process's own peak."""
    code = (
        "import re, sys, numpy as np\n"
        "from dvmsr.runtime import Upscaler\n"
        "def peak():\n"
        "    status = open('/proc/self/status').read()\n"
        "    return 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', status).group(1))\n"
        "upscaler = Upscaler.from_file(sys.argv[1], sys.argv[2], threads=1)\n"
        "upscaler(np.zeros((8, 8, 3), np.uint8))\n"
        "before = peak()\n"
        "upscaler(np.zeros((400, 400, 3), np.uint8))\n"
        "print(peak() - before)"
    )
    path = file_of_parts if in_parts else models.onnx
    command = [sys.executable, "-c", code, str(path), backend]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    computes = Upscaler.from_file(path, backend).computes
    needed = memory.estimate(models.network.config, computes, 400, 400)
    assert needed / 4 < int(result.stdout) < needed


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_a_file_without_mixers_needs_more_where_there_is_a_kernel_for_them(
    models: Models, file_of_parts: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixers, parts = (Upscaler.from_file(path, backend) for path in (models.onnx, file_of_parts))
    config = models.network.config
    needed = [memory.estimate(config, it.computes, 300, 300) for it in (mixers, parts)]
    assert needed[0] < needed[1] if backend == "native" else needed[0] == needed[1]
    monkeypatch.setattr(memory, "available", lambda: needed[1] - 1)
    with pytest.raises(DvmsrError, match="300x300 pixels, which need about"):
        parts.check_memory(300, 300)
    monkeypatch.setattr(memory, "available", lambda: needed[1])
    parts.check_memory(300, 300)


def test_grows_with_what_needs_memory() -> None:
    plain = memory.estimate(DVMSRConfig(), "native", 10, 10)
    assert plain == memory.estimate(DVMSRConfig(), "native", 20, 5)
    both = DVMSRConfig(bidirectional=True)
    for backend in ("portable", "torch"):
        alone = memory.estimate(DVMSRConfig(), backend, 10, 10)
        assert alone < memory.estimate(both, backend, 10, 10)
    assert plain < memory.estimate(DVMSRConfig(upsampler="pixelshuffle"), "native", 10, 10)
    assert plain < memory.estimate(DVMSRConfig(), "portable", 10, 10)
    assert plain < memory.estimate(PRESETS["teacher"], "native", 10, 10)


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: None)
    memory.check(DVMSRConfig(), "native", 10**5, 10**5, "p.png")
    monkeypatch.setattr(memory, "available", lambda: -5)
    with pytest.raises(
        DvmsrError, match=r"p\.png has 200x100 pixels, .* 47\.0 MiB .* 0\.0 KiB are"
    ):
        memory.check(DVMSRConfig(), "native", 100, 200, "p.png")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_strips_fit_a_limit_of_the_process() -> None:
    """The usual ones are reckoned to take 356 MiB more than the loaded model."""
    code = (
        "import re, resource, numpy as np\n"
        "from dvmsr.runtime import Upscaler\n"
        "upscaler = Upscaler.from_file(threads=1)\n"
        "upscaler(np.zeros((8, 8, 3), np.uint8))\n"
        "status = open('/proc/self/status').read()\n"
        "taken = 1024 * int(re.search(r'VmData:\\s+(\\d+)', status).group(1))\n"
        "usual = upscaler.rows_at_once(80, 900)\n"
        "limit = taken + (200 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))\n"
        "print(usual, upscaler.rows_at_once(80, 900))\n"
        "upscaler(np.zeros((80, 900, 3), np.uint8))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    usual, rows = map(int, result.stdout.split())
    assert rows < usual


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_strips_need_less_than_estimated(
    streaming_file: Path, models: Models, backend: str
) -> None:
    """And far less than the whole image does."""
    code = (
        "import re, sys, numpy as np\n"
        "from dvmsr.runtime import Upscaler\n"
        "def peak():\n"
        "    status = open('/proc/self/status').read()\n"
        "    return 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', status).group(1))\n"
        "upscaler = Upscaler.from_file(sys.argv[1], sys.argv[2], threads=1, strip=8)\n"
        "upscaler(np.zeros((8, 8, 3), np.uint8))\n"
        "before = peak()\n"
        "upscaler(np.zeros((600, 500, 3), np.uint8))\n"
        "print(peak() - before)"
    )
    command = [sys.executable, "-c", code, str(streaming_file), backend]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    config = models.network.config
    assert int(result.stdout) < memory.estimate_strips(config, backend, 600, 500, 8)
    assert 5 * int(result.stdout) < memory.estimate(config, backend, 600, 500)


def test_many_tiny_frames_need_more_than_their_pixels() -> None:
    memory.check_frames(4, 20_000, 2, 2, "tiny.gif", 300 << 20)
    with pytest.raises(DvmsrError, match=r"1000000 frames of 2x2 pixels, .* 300\.0 MiB"):
        memory.check_frames(4, 1_000_000, 2, 2, "tiny.gif", 300 << 20)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_frames_take_no_more_than_estimated(tmp_path: Path) -> None:
    """Of the fattest format, with 5,000 frames of 2x2 pixels."""
    path = tmp_path / "p.gif"
    path.write_bytes(gif_of_tiny_frames(5_000))
    path.with_name("warm.gif").write_bytes(gif_of_tiny_frames(2))
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from dvmsr.runtime.images.picture import encode_picture, read_picture\n"
        "from dvmsr.utils.memory import peak_resident as peak\n"
        "Image.init(); path = Path(sys.argv[1])\n"
        "read_picture(path.with_name('warm.gif'), lambda header: None)\n"
        "before, checked = peak(), []\n"
        "picture = read_picture(path, checked.append)\n"
        "larger = picture.mapped(lambda frame: frame.resize((8, 8)))\n"
        "encode_picture(larger, Path('o.gif'), 4)\n"
        "print(peak() - before, checked[0].frames)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    taken, frames = map(int, ran.stdout.split())
    assert frames == 5_000
    with pytest.raises(DvmsrError, match="5000 frames"):
        memory.check_frames(4, frames, 2, 2, "p.gif", taken)
