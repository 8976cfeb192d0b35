"""Engines through TensorRT's Python interface, with an emulated device and TensorRT behind it."""

from __future__ import annotations

import importlib.util
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import fake_tensorrt
import numpy as np
import pytest
from engine_info import INFO
from PIL import Image
from played_engine import PROFILE, write
from small_model import Models, random_pixels

from dvmsr import cli as dvmsr_cli
from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, UsageError
from dvmsr.kernels import cuda, driver
from dvmsr.runtime import Upscaler, cli, spec
from dvmsr.runtime.backends.trt import cuda_memory, plugin_library
from dvmsr.runtime.backends.trt.engine import EngineNetwork
from dvmsr.runtime.bench.timing import interleave
from dvmsr.runtime.parity import parity
from dvmsr.runtime.parity.drift import common_layers
from dvmsr.runtime.parity.samples import synthetic_sample

CARRYING_CODE: list[dict[str, object]] = [
    {"plugin": replace(INFO.plugin, embedded=True) if INFO.plugin else None},
    {"version_compatible": True},
]
CARRYING = [
    "dvmsr-infer in.png --engine x.engine -o out.png",
    "parity x.engine m.onnx",
    "bench x.engine",
    "eval . --model x.engine",
    "compare in.png --model x.engine --html page.html",
]
"""Commands that load an engine."""


@pytest.fixture
def tensorrt(emulated_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = fake_tensorrt.module(emulated_gpu, PROFILE.inputs())
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.fixture
def engines(tensorrt: ModuleType, models: Models, tmp_path: Path) -> dict[str, Path]:
    return {
        "fp32": write(tmp_path / "fp32.engine", models.onnx),
        "fp16": write(tmp_path / "fp16.engine", models.onnx_fp16),
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_pictures_equal_those_of_the_cpu(
    engines: dict[str, Path], models: Models, precision: str
) -> None:
    onnx = models.onnx if precision == "fp32" else models.onnx_fp16
    on_cpu = Upscaler.from_file(onnx, "portable")
    upscaler = Upscaler.from_file(engines[precision])
    assert (upscaler.backend, upscaler.precision) == ("tensorrt", precision)
    for size in [(5, 7), (5, 7), (5, 7), (40, 48), (9, 4), (5, 7)]:  # eager, recorded, replayed
        pixels = random_pixels(*size)
        np.testing.assert_array_equal(upscaler(pixels), on_cpu(pixels))
    picture = Image.fromarray(random_pixels(6, 8))
    picture.putalpha(77)
    assert upscaler(picture).mode == "RGBA"


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_other_types_of_pixels(engines: dict[str, Path], models: Models, dtype: type) -> None:
    image = np.random.default_rng(0).random((6, 5, 3)).astype(np.float32)
    scale = 65535 if dtype == np.uint16 else 1
    image = np.round(image * scale).astype(dtype)
    on_gpu = Upscaler.from_file(engines["fp32"])(image)
    on_cpu = Upscaler.from_file(models.onnx, "portable")(image)
    assert on_gpu.dtype == on_cpu.dtype == dtype
    np.testing.assert_allclose(on_gpu.astype(float), on_cpu.astype(float), atol=2e-6 * scale + 0)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 2e-6), ("fp16", 5e-3)])
def test_planes_are_neither_clipped_nor_rounded(
    engines: dict[str, Path], models: Models, precision: str, limit: float
) -> None:
    planes = np.random.default_rng(0).random((2, 3, 6, 5), np.float32) * 3 - 1
    network = EngineNetwork(engines[precision])
    truth = Upscaler.from_file(models.onnx, "portable").network(planes)
    assert truth.min() < 0
    for _ in range(3):
        np.testing.assert_allclose(network(planes), truth, atol=limit * np.abs(truth).max())
    assert network.seconds(planes) > 0


def test_from_the_second_call_with_a_shape_on_it_is_a_graph(
    engines: dict[str, Path], tensorrt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = []
    launch = cuda_memory.Graph.launch
    monkeypatch.setattr(
        cuda_memory.Graph, "launch", lambda self: (launches.append(self), launch(self))
    )
    network = EngineNetwork(engines["fp32"])
    large, small = random_pixels(20, 20), random_pixels(8, 8)
    results = [network.enlarge(image) for image in (large, large, small, small, large, small)]
    assert len(launches) == 4
    assert len(set(launches)) == 2
    assert network._loaded.engine.contexts == 2
    assert all(np.array_equal(results[0], results[i]) for i in (1, 4))
    assert all(np.array_equal(results[2], results[i]) for i in (3, 5))
    network.enlarge(random_pixels(30, 30))  # buffers grow, and what held their addresses is gone
    assert np.array_equal(network.enlarge(large), results[0])
    assert network._loaded.engine.contexts == 4
    assert len(launches) == 4


def test_only_so_many_shapes_are_kept(engines: dict[str, Path]) -> None:
    network = EngineNetwork(engines["fp32"])
    for width in range(40, 4, -3):
        network.enlarge(random_pixels(5, width))
    assert len(network._loaded.prepared) == 8


def test_memory_is_reused_and_given_back(engines: dict[str, Path]) -> None:
    before = cuda.load().device().free_bytes
    network = EngineNetwork(engines["fp32"])
    network.enlarge(random_pixels(40, 48))
    taken = network.device_memory()
    assert taken > 40 * 48 * 3 * (4 + 16)
    for height in range(4, 40, 7):
        network.enlarge(random_pixels(height, 48))
    assert network.device_memory() == taken
    del network
    assert cuda.load().device().free_bytes == before


def test_threads_take_turns(engines: dict[str, Path], models: Models) -> None:
    upscaler = Upscaler.from_file(engines["fp32"])
    images = [random_pixels(5 + i, 9) for i in range(4)]
    truths = list(map(Upscaler.from_file(models.onnx, "portable"), images))
    results: dict[int, bool] = {}

    def work(i: int) -> None:
        results[i] = all(np.array_equal(upscaler(images[i]), truths[i]) for _ in range(3))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), True)


def test_runs_without_a_graph_where_none_can_be_recorded(
    engines: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = EngineNetwork(engines["fp32"])
    image = random_pixels(8, 8)
    first = network.enlarge(image)
    context = next(iter(network._loaded.prepared.values())).context
    context.ran = False  # so that it refuses to be recorded
    with pytest.warns(UserWarning, match=r"without a CUDA graph.*not ready for a recording"):
        assert np.array_equal(network.enlarge(image), first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(network.enlarge(image), first)


def test_a_shape_outside_the_profile(engines: dict[str, Path]) -> None:
    message = (
        r"the image has 60x30 pixels \(batch 1\), and .*fp32.engine takes 4x4 to 48x40 "
        r"\(batch 1 to 2\); build one that takes it: `dvmsr-export trt` with --min 4x4 "
        r"--max 40x60 --batch 1,1,2$"
    )
    upscaler = Upscaler.from_file(engines["fp32"])
    with pytest.raises(IncompatibleModelError, match=message):
        upscaler(random_pixels(30, 60))
    with pytest.raises(IncompatibleModelError, match="--min 3x4 --max 40x48"):
        upscaler(random_pixels(3, 5))
    with pytest.raises(IncompatibleModelError, match=r"--max 40x48 --batch 1,1,3$"):
        upscaler.network(np.zeros((3, 3, 5, 5), np.float32))


def test_values_that_are_not_finite(engines: dict[str, Path]) -> None:
    network = EngineNetwork(engines["fp32"])
    image = np.full((5, 5, 3), np.inf, np.float32)
    with pytest.raises(DvmsrError, match="not finite; build it again in FP32"):
        network.enlarge(image)
    assert network.enlarge(random_pixels(5, 5)).any()  # the next one is well


def test_too_little_memory(engines: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    network = EngineNetwork(engines["fp32"])
    with pytest.raises(DvmsrError, match="the GPU has too little free memory; use a smaller"):
        network._reserve(1, 1 << 14, 1 << 14, 4)
    assert network.enlarge(random_pixels(5, 5)).any()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"tensorrt": "10.3.0"}, "built by TensorRT 10.3.0, and this is TensorRT 10.14.1.48"),
        ({"compute_capabilities": ("8.6",)}, "compute capability 8.6, and this GPU has 9.0"),
    ],
    ids=["TensorRT", "GPU"],
)
def test_of_another_machine(
    engines: dict[str, Path], models: Models, changed: dict[str, object], complaint: str
) -> None:
    path = write(engines["fp32"], models.onnx, **changed)
    with pytest.raises(IncompatibleModelError, match=f"{complaint}; build it again: dvmsr-export"):
        EngineNetwork(path)


def test_a_plan_that_tensorrt_refuses(engines: dict[str, Path], models: Models) -> None:
    path = write(engines["fp32"], models.onnx.with_name("no plan"))
    with pytest.raises(
        IncompatibleModelError, match=r"cannot be loaded by tensorrt 10\.14\.1\.48 \(the magic tag"
    ):
        EngineNetwork(path)


def plugin_in(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes this the machine's plugin, and tells its hash."""
    (folder / name).mkdir()
    library = folder / name / "libdvmsr_trt10.so"
    library.write_bytes(name.encode())
    monkeypatch.setenv(plugin_library.ENVIRONMENT, str(library))
    return plugin_library.sha256(library)


def test_the_plugin_is_registered_once(
    engines: dict[str, Path], models: Models, tensorrt: ModuleType, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    digest = plugin_in(tmp_path, "good", monkeypatch)
    assert INFO.plugin
    path = write(engines["fp32"], models.onnx, plugin=replace(INFO.plugin, sha256=digest))
    EngineNetwork(path)
    EngineNetwork(path)
    registry = tensorrt.get_plugin_registry()
    assert registry.loaded == [str(tmp_path / "good" / "libdvmsr_trt10.so")]


def test_a_plan_that_carries_its_plugin_finds_none_registered(
    engines: dict[str, Path], models: Models, tensorrt: ModuleType, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Which TensorRT refuses; the library of an engine that is gone makes way."""
    digest = plugin_in(tmp_path, "good", monkeypatch)
    assert INFO.plugin
    beside = replace(INFO.plugin, sha256=digest)
    alone = write(engines["fp32"], models.onnx, plugin=beside)
    carrying = write(engines["fp16"], models.onnx, plugin=replace(beside, embedded=True))
    message = (
        r"fp16\.engine carries the plugin that something in this process has registered, which "
        r"TensorRT refuses \(a plugin is registered already\); use it in a process of its own, or "
        r"build it again without --embed-plugin$"
    )
    registry = tensorrt.get_plugin_registry()
    first = EngineNetwork(alone)
    for other in (first, EngineNetwork(alone)):
        with pytest.raises(DvmsrError, match=message):
            EngineNetwork(carrying, trust=True)
        assert registry.loaded == [str(tmp_path / "good" / "libdvmsr_trt10.so")]
        assert other.enlarge(random_pixels(5, 5)).any()
    del first, other
    second = EngineNetwork(carrying, trust=True)
    assert registry.loaded == [fake_tensorrt.CARRIED]
    with pytest.raises(DvmsrError, match=message):
        EngineNetwork(carrying, trust=True)
    third = EngineNetwork(alone)  # by the plugin that is there
    assert second.enlarge(random_pixels(5, 5)).any() and third.enlarge(random_pixels(5, 5)).any()
    del second, third
    EngineNetwork(alone)
    EngineNetwork(carrying, trust=True)


def test_another_build_of_the_plugin_replaces_one_that_nothing_uses(
    engines: dict[str, Path], models: Models, tensorrt: ModuleType, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert INFO.plugin
    paths = []
    for name, engine_path in zip(("old", "new"), engines.values(), strict=True):
        plugin = replace(INFO.plugin, sha256=plugin_in(tmp_path, name, monkeypatch))
        paths.append(write(engine_path, models.onnx, plugin=plugin))
    old, new = paths
    registry = tensorrt.get_plugin_registry()
    network = EngineNetwork(new)
    monkeypatch.setenv(plugin_library.ENVIRONMENT, str(tmp_path / "old" / "libdvmsr_trt10.so"))
    with pytest.raises(DvmsrError, match=r"needs another plugin library than an engine that is in"):
        EngineNetwork(old)
    assert network.enlarge(random_pixels(5, 5)).any()
    del network
    EngineNetwork(old)
    assert registry.loaded == [str(tmp_path / "old" / "libdvmsr_trt10.so")]


def test_another_plugin_is_refused(
    engines: dict[str, Path], models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_in(tmp_path, "other", monkeypatch)
    path = write(engines["fp32"], models.onnx, plugin=INFO.plugin)
    with pytest.raises(IncompatibleModelError, match=r"built with another plugin library.*again: "):
        EngineNetwork(path)


def test_a_plugin_that_does_not_load(
    engines: dict[str, Path], models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = plugin_in(tmp_path, "broken", monkeypatch)
    assert INFO.plugin
    path = write(engines["fp32"], models.onnx, plugin=replace(INFO.plugin, sha256=digest))
    with pytest.raises(MissingComponentError, match=r"libdvmsr_trt10\.so cannot be loaded by"):
        EngineNetwork(path)


def test_host_code_only_where_there_is_some_and_it_is_trusted(
    engines: dict[str, Path], models: Models
) -> None:
    for trust in (False, True):
        network = EngineNetwork(engines["fp32"], trust)
        assert not network._loaded.runtime.engine_host_code_allowed
    for carried in CARRYING_CODE:
        path = write(engines["fp32"], models.onnx, **carried)
        with pytest.raises(UsageError, match=r"fp32\.engine carries .* with --trust-engine"):
            EngineNetwork(path)
        assert EngineNetwork(path, trust=True)._loaded.runtime.engine_host_code_allowed


@pytest.mark.parametrize("command", CARRYING, ids=lambda line: line.split()[0])
def test_every_command_asks_for_trust(
    engines: dict[str, Path], models: Models, folder: Path, command: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write(folder / "x.engine", models.onnx, version_compatible=True)
    Image.fromarray(random_pixels(16, 16)).save("in.png")
    trusted: list[bool] = []

    def opened(self: EngineNetwork, path: Path, trust: bool = False) -> None:
        trusted.append(trust)
        raise DvmsrError("far enough")

    def run(*arguments: str) -> int:
        name = "dvmsr" if arguments[0] != "dvmsr-infer" else arguments[0]
        main = cli.main if name == "dvmsr-infer" else dvmsr_cli.main
        monkeypatch.setattr("sys.argv", [name, *arguments[name == "dvmsr-infer" :]])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    assert run(*command.split()) == 2
    assert "x.engine carries a runtime of TensorRT" in capsys.readouterr().err
    monkeypatch.setattr(EngineNetwork, "__init__", opened)
    assert run(*command.split(), "--trust-engine") == 1
    assert trusted == [True]


def test_the_command(engines: dict[str, Path], folder: Path, infer: Callable[..., int]) -> None:
    Image.fromarray(random_pixels(6, 8)).save("in.png")
    assert infer("in.png", "--engine", str(engines["fp16"]), "-o", "out.png") == 0
    assert Image.open("out.png").size == (16, 12)
    Image.fromarray(random_pixels(6, 80)).save("wide.png")
    assert infer("wide.png", "--engine", str(engines["fp16"])) == 5
    assert infer("in.png", "--engine", "none.engine") == 2
    assert infer("in.png", "--engine", str(engines["fp16"]), "--backend", "native") == 2
    assert infer("in.png", "--model", str(engines["fp16"]), "--backend", "native") == 2
    assert infer("in.png", "--engine", str(engines["fp16"]), "--model", "student") == 2


@pytest.mark.parametrize("option", ["strip", "memory_limit"])
def test_an_engine_takes_no_limits(engines: dict[str, Path], option: str) -> None:
    with pytest.raises(UsageError, match="computes on a GPU; leave out the height of strips"):
        Upscaler.from_file(engines["fp16"], **{option: 8})


def test_the_backend_needs_tensorrt_a_gpu_and_an_engine(
    engines: dict[str, Path], folder: Path, infer: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Image.fromarray(random_pixels(6, 8)).save("in.png")
    command = ["in.png", "--model", "m.onnx", "--backend", "tensorrt"]
    monkeypatch.setattr(driver, "first", lambda: driver.Gpu("A GPU", "8.9"))
    assert infer(*command) == 2
    assert "make one with `dvmsr-export trt m.onnx` and name its" in capsys.readouterr().err
    monkeypatch.setattr(driver, "first", lambda: None)
    assert infer(*command) == 4
    assert "tensorrt cannot be used: there is no NVIDIA GPU" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert infer(*command) == 4
    assert "tensorrt cannot be used: TensorRT is not installed" in capsys.readouterr().err


def test_without_tensorrt(
    engines: dict[str, Path], folder: Path, infer: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    Image.fromarray(random_pixels(6, 8)).save("in.png")
    assert infer("in.png", "--engine", str(engines["fp16"])) == 4
    assert "TensorRT is not installed; pip install 'dvmsr[gpu]'" in capsys.readouterr().err


@pytest.mark.skipif(driver.first() is not None, reason="there is a GPU")
def test_without_a_gpu(
    engines: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DVMSR_CUDA_LIBRARY")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cuda.load.cache_clear()
    message = r"fp32.engine was built for .*9.0.*, and there is no NVIDIA GPU .* driver for one$"
    with pytest.raises(MissingComponentError, match=message):
        EngineNetwork(engines["fp32"])


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="needs tensorrt-rtx-cu13-bindings",
)
def test_the_names_are_those_of_tensorrt(cuda_on_host: Path) -> None:
    import tensorrt_rtx_bindings as real

    fake = fake_tensorrt.module(cuda_on_host, {}, fake_tensorrt.RTX_NAME)
    for name, value in vars(fake).items():
        if name.startswith("__"):
            continue
        assert hasattr(real, name), name
        if isinstance(value, type):
            used = [n for n in vars(value) if not n.startswith("_")]
            missing = [n for n in used if not hasattr(getattr(real, name), n)]
            assert not missing, f"{name}: {missing}"


def test_is_compared_and_timed_as_every_backend(engines: dict[str, Path], models: Models) -> None:
    on_cpu, upscaler = Upscaler.from_file(models.onnx, "portable"), spec.load(str(engines["fp16"]))
    sample = synthetic_sample(upscaler.network.usual_shape)
    assert sample.shape == PROFILE.opt
    (image,), _ = parity.compare(upscaler, on_cpu, [lambda: sample])
    assert image.psnr > 50  # of a random network
    with pytest.raises(UsageError, match="leave out --layers"):
        common_layers(upscaler.network, on_cpu.network)
    contestants = [lambda: upscaler.network.seconds(sample.planes)]
    (seconds,) = interleave(contestants, rounds=3)
    assert len(seconds) == 3 and min(seconds) > 0
    assert (upscaler.network.clock, on_cpu.network.clock) == ("CUDA events", "wall clock")
    assert upscaler.network.details()["build_seconds"] == INFO.build_seconds
