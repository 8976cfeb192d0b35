from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from small_model import CONFIG, ONNX_BACKENDS, Models, random_pixels, reference

from dvmsr import checkpoint
from dvmsr.errors import (
    DvmsrError,
    IncompatibleModelError,
    MissingComponentError,
    UsageError,
)
from dvmsr.kernels import cpu
from dvmsr.model import DVMSR
from dvmsr.runtime import Upscaler
from dvmsr.runtime.backends.base import Network

SIZES = [(1, 1), (3, 40), (17, 16)]


@pytest.fixture(scope="module")
def upscaler(models: Models) -> Upscaler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there are no native operators
        return Upscaler.from_file(models.onnx, threads=1)


@pytest.mark.parametrize(("height", "width"), SIZES, ids=[f"{h}x{w}" for h, w in SIZES])
@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_equals_pytorch(models: Models, backend: str, height: int, width: int) -> None:
    """To one of 255 levels, which rounding may cost."""
    pixels = random_pixels(height, width)
    result = Upscaler.from_file(models.onnx, backend, threads=1)(pixels)
    assert result.dtype == np.uint8
    assert result.shape == (2 * height, 2 * width, 3)
    assert np.abs(result.astype(int) - reference(models.network, pixels)).max() <= 1


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_an_fp16_file_equals_pytorch(models: Models, backend: str) -> None:
    """To 2 of 255 levels: half precision rounds values near 1 to 1/2048."""
    pixels = random_pixels(9, 11)
    upscaler = Upscaler.from_file(models.onnx_fp16, backend)
    assert upscaler.precision == "fp16"
    difference = upscaler(pixels).astype(int) - reference(models.network, pixels)
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_a_checkpoint_runs_in_pytorch(models: Models, kind: str) -> None:
    pixels = random_pixels(5, 8)
    upscaler = Upscaler.from_file(getattr(models, kind))
    assert (upscaler.backend, upscaler.precision) == ("torch", "fp32")
    np.testing.assert_array_equal(upscaler(pixels), reference(models.network, pixels))


@pytest.mark.parametrize(
    ("backend", "file"),
    [("torch", "dvmsr_x4.safetensors"), ("portable", "dvmsr_x4.streaming.onnx")],
)
def test_the_bundled_model_runs_on_every_backend(backend: str, file: str) -> None:
    upscaler = Upscaler.from_file("student", backend)
    assert (upscaler.backend, Path(upscaler.model).name) == (backend, file)
    assert pickle.loads(pickle.dumps(upscaler)).model == upscaler.model


def test_tells_what_it_is(models: Models) -> None:
    upscaler = Upscaler.from_file(str(models.onnx), backend="portable")
    assert (upscaler.scale, upscaler.config) == (2, CONFIG)
    assert (upscaler.backend, upscaler.precision) == ("portable", "fp32")
    assert upscaler.model == str(models.onnx)


@pytest.mark.parametrize("suffix", ["onnx", "safetensors", "student"])
def test_pickled_it_opens_its_model_again(
    models: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str
) -> None:
    path = Path(getattr(models, suffix, suffix))
    monkeypatch.chdir(path.parent)
    upscaler = Upscaler.from_file(path.name, "auto", 1, memory_limit=1 << 30)
    opened = pickle.dumps(upscaler)
    monkeypatch.chdir(tmp_path)
    pixels = random_pixels(6, 9)
    for again in (pickle.loads(opened), copy.deepcopy(upscaler), pickle.loads(opened)):
        assert again.network is not upscaler.network
        assert (again.backend, again.memory_limit) == (upscaler.backend, 1 << 30)
        assert pickle.dumps(again) == opened
        np.testing.assert_array_equal(again(pixels), upscaler(pixels))


def test_pickled_it_keeps_strips_and_backend(streaming_file: Path) -> None:
    upscaler = Upscaler.from_file(streaming_file, "portable", strip=5)
    again = pickle.loads(pickle.dumps(upscaler))
    assert (again.backend, again.strip) == ("portable", 5)
    again.strip = 7
    assert pickle.loads(pickle.dumps(again)).strip == 7


def test_a_pickled_one_misses_its_file_where_that_is_not(models: Models, tmp_path: Path) -> None:
    path = tmp_path / "gone.onnx"
    path.write_bytes(models.onnx.read_bytes())
    opened = pickle.dumps(Upscaler.from_file(path, "portable"))
    path.unlink()
    with pytest.raises(UsageError, match=r"gone\.onnx does not exist; check the name"):
        pickle.loads(opened)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_pool_takes_it(models: Models, method: str) -> None:
    upscaler = Upscaler.from_file(models.onnx, threads=1)
    pixels = random_pixels(6, 9)
    with ProcessPoolExecutor(1, get_context(method)) as pool:
        result = pool.submit(upscaler, pixels).result(timeout=100)
    np.testing.assert_array_equal(result, upscaler(pixels))


def test_pillow_and_numpy_agree(upscaler: Upscaler) -> None:
    pixels = random_pixels(6, 9)
    result = upscaler(Image.fromarray(pixels))
    assert result.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(result), upscaler(pixels))


@pytest.mark.parametrize(("dtype", "top"), [("uint16", 65535), ("float32", 1), ("float64", 1)])
def test_types_agree(upscaler: Upscaler, dtype: str, top: int) -> None:
    """All within half a level of the 8-bit result."""
    pixels = random_pixels(6, 9)
    wide = (pixels * (top / 255)).astype(dtype)
    result = upscaler(wide)
    assert result.dtype == dtype
    assert result.min() >= 0
    assert result.max() <= top
    assert np.abs(result * (255 / top) - upscaler(pixels)).max() <= 0.51


def test_tells_how_many_rows_are_done(upscaler: Upscaler, streaming_file: Path) -> None:
    pixels, told = random_pixels(25, 9), []
    upscaler(pixels, lambda *rows: told.append(rows))
    assert told == [(25, 25)]
    by_strips = Upscaler.from_file(streaming_file, strip=8)
    told.clear()
    by_strips(pixels, lambda *rows: told.append(rows))
    done, heights = zip(*told, strict=True)
    assert len(done) > 1 and list(done) == sorted(set(done)) and done[-1] == 25
    assert set(heights) == {25}


def test_leaves_its_input_alone(upscaler: Upscaler) -> None:
    pixels = random_pixels(6, 9)
    strided = np.asfortranarray(pixels)[:, ::-1]
    strided.flags.writeable = False
    np.testing.assert_array_equal(upscaler(strided), upscaler(pixels[:, ::-1].copy()))
    image = Image.fromarray(pixels)
    image.info = {"icc_profile": b"x" * 128, "dpi": (72, 72)}
    upscaler(image)
    assert image.info == {"icc_profile": b"x" * 128, "dpi": (72, 72)}


def test_gray_stays_gray(upscaler: Upscaler) -> None:
    image = Image.fromarray(random_pixels(4, 5, 1))
    result = upscaler(image)
    assert (result.mode, result.size) == ("L", (10, 8))
    assert result.tobytes() == upscaler(image.convert("RGB")).convert("L").tobytes()


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 4), ("LA", 2)])
def test_transparency_is_enlarged_beside_the_colours(
    upscaler: Upscaler, mode: str, channels: int
) -> None:
    image = Image.fromarray(random_pixels(4, 5, channels), mode)
    result = upscaler(image)
    assert (result.mode, result.size) == (mode, (10, 8))
    alpha = image.getchannel("A").resize((10, 8), Image.Resampling.BICUBIC)
    assert result.getchannel("A").tobytes() == alpha.tobytes()
    opaque = mode[:-1]
    assert result.convert(opaque).tobytes() == upscaler(image.convert(opaque)).tobytes()


def test_a_turned_picture_is_turned_before(upscaler: Upscaler) -> None:
    image = Image.fromarray(random_pixels(4, 5))
    upright = upscaler(image.transpose(Image.Transpose.ROTATE_270))
    image.getexif()[0x0112] = 6
    result = upscaler(image)
    assert result.tobytes() == upright.tobytes()
    assert 0x0112 not in result.getexif()


def test_threads_may_share_it(upscaler: Upscaler) -> None:
    images = [random_pixels(5 + i, 20) for i in range(6)]
    expected = [upscaler(image) for image in images]
    with ThreadPoolExecutor(3) as pool:
        for result, alone in zip(pool.map(upscaler, images * 3), expected * 3, strict=True):
            np.testing.assert_array_equal(result, alone)


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((4, 4), np.uint8), "shape"),
        (np.zeros((4, 4, 4), np.uint8), "shape"),
        (np.zeros((1, 4, 4, 3), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
        (np.full((4, 4, 3), 255.0), r"\[0, 1\]"),
        (np.full((4, 4, 3), np.nan), r"\[0, 1\]"),
        ("photo.png", "str"),
    ],
    ids=["gray", "rgba", "batch", "empty", "int32", "0..255", "nan", "path"],
)
def test_refuses_what_is_no_image(upscaler: Upscaler, image: object, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        upscaler(image)  # type: ignore[type-var]


def test_refuses_what_does_not_fit_the_memory(
    upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvmsr.runtime.memory.available", lambda: 10**9)
    with pytest.raises(DvmsrError, match=r"30000x20000 pixels, which need about .* GiB"):
        upscaler(np.broadcast_to(np.uint8(0), (20000, 30000, 3)))


def test_refuses_to_pass_on_nan() -> None:
    class Broken(Network):
        config, precision = CONFIG, "fp32"

        def __call__(self, image: np.ndarray) -> np.ndarray:
            return np.full((1, 3, 8, 8), np.nan, np.float32)

    broken = Upscaler(Broken(), "native", "b.onnx")
    with pytest.raises(DvmsrError, match=r"b\.onnx .* not finite"):
        broken(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UsageError, match=r"b\.onnx was not opened by from_file"):
        pickle.dumps(broken)


def test_a_file_for_one_size_takes_only_that(models: Models) -> None:
    upscaler = Upscaler.from_file(models.onnx_5x7, backend="portable")
    pixels = random_pixels(5, 7)
    difference = upscaler(pixels).astype(int) - reference(models.network, pixels)
    assert np.abs(difference).max() <= 1
    with pytest.raises(IncompatibleModelError, match="7x5 pixels only, not 5x7"):
        upscaler(random_pixels(7, 5))


def test_without_native_operators_auto_warns(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "library_path", lambda: None)
    with pytest.warns(UserWarning, match="slower; reinstall dvmsr where GCC or Clang"):
        assert Upscaler.from_file(models.onnx).backend == "portable"
    with pytest.raises(MissingComponentError, match="use the backend portable"):
        Upscaler.from_file(models.onnx, backend="native")


def test_a_library_that_does_not_load(
    models: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(cpu, "library_path", lambda: models.pth)
    with pytest.raises(MissingComponentError, match=r"small\.pth cannot be loaded"):
        Upscaler.from_file(models.onnx)


@pytest.mark.parametrize(
    ("kind", "backend", "complaint"),
    [
        ("onnx", "vulkan", "auto, native, portable, torch, cuda, tensorrt"),
        ("onnx", "torch", "runs checkpoints"),
        ("pth", "native", "dvmsr-export onnx"),
        ("safetensors", "portable", "dvmsr-export onnx"),
    ],
)
def test_backends_that_do_not_fit(models: Models, kind: str, backend: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Upscaler.from_file(getattr(models, kind), backend)


def test_a_checkpoint_without_pytorch(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "dvmsr.checkpoint"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingComponentError, match=r"pip install 'dvmsr\[train\]'"):
        Upscaler.from_file(models.pth)


def test_needs_neither_torch_nor_onnx(models: Models) -> None:
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, safetensors=None)\n"
        "import numpy as np\n"
        "from dvmsr.runtime import Upscaler\n"
        "upscaler = Upscaler.from_file(sys.argv[1], backend='portable')\n"
        "print(upscaler(np.zeros((2, 3, 3), np.uint8)).shape)"
    )
    command = [sys.executable, "-c", code, str(models.onnx)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(4, 6, 3)"


@pytest.mark.parametrize(
    ("graph", "complaint"),
    [
        (
            "(float[1,3,h,w] input) => (float[1,3,h,w] output)",
            r"\(1, 3, 4, 5\) where its scale of 2",
        ),
        ("(int64[1,3,h,w] input) => (int64[1,3,h,w] output)", "other inputs and outputs"),
        ("(float[n] input) => (float[n] output)", "other inputs and outputs"),
        ("(float[1,1,h,w] input) => (float[1,1,h,w] output)", "other inputs and outputs"),
    ],
    ids=["no enlargement", "integers", "rank 1", "gray"],
)
def test_refuses_our_metadata_on_another_graph(
    models: Models, tmp_path: Path, graph: str, complaint: str
) -> None:
    text = f'<ir_version: 8, opset_import: ["": 18]> g {graph} {{ output = Identity (input) }}'
    model = onnx.load(models.onnx)
    model.graph.CopyFrom(onnx.parser.parse_model(text).graph)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(IncompatibleModelError, match=complaint):
        Upscaler.from_file(tmp_path / "m.onnx", "portable", threads=1)(random_pixels(4, 5))


@pytest.mark.parametrize("threads", [-3, 0, 1.5])
def test_refuses_a_number_of_threads(models: Models, threads: int) -> None:
    with pytest.raises(UsageError, match="must be a positive integer"):
        Upscaler.from_file(models.onnx, threads=threads)


def test_takes_no_more_threads_than_processors(models: Models) -> None:
    with pytest.warns(UserWarning, match=r"1024 threads are more than the \d+ processors"):
        Upscaler.from_file(models.onnx, threads=1024)


def test_an_interrupt_while_the_thread_starts_stops_the_network(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would compute on, and hold up the end of the process."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    upscaler = Upscaler.from_file(models.onnx, "portable", threads=1)
    before = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        upscaler(random_pixels(300, 300))
    assert threading.active_count() == before


def test_cuda_without_its_provider_is_said(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MissingComponentError, match=r"no CUDA provider; .*onnxruntime-gpu"):
        Upscaler.from_file(models.onnx, "cuda")


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_strips_give_the_same_picture(models: Models, streaming_file: Path, backend: str) -> None:
    pixels = random_pixels(21, 6)
    expected = Upscaler.from_file(streaming_file, backend, threads=1)(pixels)
    for strip in (1, 9, 20, 21, 50):
        upscaler = Upscaler.from_file(streaming_file, backend, threads=1, strip=strip)
        assert upscaler.rows_at_once(21, 6) == min(strip, 21)
        assert np.abs(upscaler(pixels).astype(int) - expected).max() <= 1
    assert np.abs(expected.astype(int) - reference(models.network, pixels)).max() <= 1


def test_a_checkpoint_streams_where_the_whole_does_not_fit(models: Models) -> None:
    pixels = random_pixels(6000, 8)
    upscaler = Upscaler.from_file(models.safetensors, memory_limit=34 << 20)
    assert upscaler.rows_at_once(6000, 8) < 6000
    assert np.abs(upscaler(pixels).astype(int) - reference(models.network, pixels)).max() <= 1


def test_limits_the_memory(models: Models, streaming_file: Path) -> None:
    with pytest.raises(DvmsrError, match=r"1\.0 KiB are allowed; cut it into parts or make it"):
        Upscaler.from_file(streaming_file, memory_limit=1000)(random_pixels(500, 50))
    with pytest.raises(DvmsrError, match=r"allowed; .* or use a model that streams"):
        Upscaler.from_file(models.onnx, memory_limit=1000)(random_pixels(9, 9))


def test_an_ordinary_file_has_no_strips(models: Models) -> None:
    with pytest.raises(UsageError, match=r"small\.onnx computes whole images only; .* --streaming"):
        Upscaler.from_file(models.onnx, strip=8)


def test_a_bidirectional_network_says_why_it_has_no_strips(tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    checkpoint.save(DVMSR(replace(CONFIG, bidirectional=True)), path)
    with pytest.raises(UsageError, match=r"both\.safetensors is bidirectional: its backward scans"):
        Upscaler.from_file(path, strip=8)


def test_the_bundled_model_streams() -> None:
    assert Upscaler.from_file("student", threads=1).network.streams


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_never_becomes_the_cpu(
    models: Models, emulated_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime goes on without a provider that does not load."""
    from dvmsr.runtime.backends.onnxrt.library import onnxruntime

    providers = ["CUDAExecutionProvider", *onnxruntime.get_available_providers()]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    with pytest.raises(MissingComponentError, match="CUDA provider does not load; "):
        Upscaler.from_file(models.onnx, "cuda")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an ...", ""),
        ("CUDA failure 35: driver too old\nat x.cc", r" \(CUDA failure 35: driver too old\)"),
    ],
)
def test_operators_that_only_the_gpu_has_tell_of_a_missing_provider(
    models: Models, emulated_gpu: Path, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    """What ONNX Runtime says when it goes on with the CPU, which has no such operators, and when
    the provider itself fails."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr("onnxruntime.InferenceSession", fail)
    with pytest.raises(MissingComponentError, match=f"CUDA provider does not load{told}; "):
        Upscaler.from_file(models.onnx, "cuda")
