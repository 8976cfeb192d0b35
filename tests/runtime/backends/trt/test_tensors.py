"""Engines of any network through TensorRT's Python interface, with an emulated device behind it."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import ModuleType

import fake_tensorrt
import numpy as np
import pytest
from onnx import parser, save
from played_engine import PROFILE, write
from small_model import Models

from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError, UsageError
from dvmsr.kernels import cuda
from dvmsr.runtime.backends.onnxrt.tensors import OnnxTensors
from dvmsr.runtime.backends.tensors import Example, Port
from dvmsr.runtime.backends.trt import cuda_memory
from dvmsr.runtime.backends.trt.engine import EngineNetwork
from dvmsr.runtime.backends.trt.profiles import InputProfile
from dvmsr.runtime.backends.trt.tensors import EngineTensors

MIXED = """<ir_version: 8, opset_import: ["":18]>
g (float16[N,4] x, int64[N] ids, int32[N] steps, bool[N,4] mask, float scale)
    => (float16[M,4] y, int64[N] best, bool[N,4] positive, int32[N] later, float same) {
    half = Cast <to = 10> (scale)
    zero = Constant <value = float16 {0}> ()
    kept = Where (mask, x, zero)
    scaled = Mul (kept, half)
    y = Concat <axis = 0> (scaled, scaled)
    arg = ArgMax <axis = 1, keepdims = 0> (scaled)
    best = Add (arg, ids)
    positive = Greater (scaled, zero)
    later = Add (steps, steps)
    same = Identity (scale)
}"""
PROFILES = {
    "x": InputProfile((1, 4), (2, 4), (50, 4)),
    "ids": InputProfile((1,), (2,), (50,)),
    "steps": InputProfile((1,), (2,), (50,)),
    "mask": InputProfile((1, 4), (2, 4), (50, 4)),
    "scale": InputProfile((), (), ()),
}
MODEL = {
    "dvmsr.network": "my:net",
    "dvmsr.dynamic": json.dumps({"x": {"0": "batch"}}),
    "dvmsr.example_range": json.dumps({"x": [-1, 2]}),
}


@pytest.fixture
def tensorrt(emulated_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = fake_tensorrt.module(emulated_gpu, {**PROFILES, **PROFILE.inputs()})
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def mixed_file(folder: Path) -> Path:
    save(parser.parse_model(MIXED), folder / "mixed.fp16.onnx")
    return folder / "mixed.fp16.onnx"


@pytest.fixture
def engine(tensorrt: ModuleType, tmp_path: Path) -> Path:
    """Of a network with tensors of five types and a scalar."""
    return write(
        tmp_path / "x.engine",
        mixed_file(tmp_path),
        profiles=PROFILES,
        model=MODEL,
        precision="fp16",
    )


def arrays(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "x": generator.normal(size=(batch, 4)).astype(np.float16),
        "ids": generator.integers(0, 9, batch),
        "steps": generator.integers(0, 9, batch).astype(np.int32),
        "mask": generator.random((batch, 4)) > 0.3,
        "scale": np.float32(seed + 0.5),
    }


def test_outputs_equal_those_of_the_file(engine: Path, tmp_path: Path) -> None:
    network, on_cpu = EngineTensors(engine), OnnxTensors(mixed_file(tmp_path), "portable", None)
    for batch in (3, 3, 3, 40, 1, 3):  # eager, recorded, replayed; buffers grow
        given = arrays(batch, seed=batch)
        ours, theirs = network(**given), on_cpu(**given)
        assert ours.keys() == theirs.keys()
        for name, truth in theirs.items():
            assert ours[name].dtype == truth.dtype and ours[name].shape == truth.shape
            np.testing.assert_array_equal(ours[name], truth)
    first = network(**arrays(3))["y"]
    kept = first.copy()
    network(**arrays(3, seed=5))
    np.testing.assert_array_equal(first, kept)  # results are arrays of their own


def test_what_it_tells(engine: Path) -> None:
    network = EngineTensors(engine)
    assert (network.backend, network.precision, network.clock) == (
        "tensorrt",
        "fp16",
        "CUDA events",
    )
    assert network.model == str(engine)
    assert network.inputs == {
        "x": Port(("batch", 4), "float16"),
        "ids": Port(("ids_0",), "int64"),
        "steps": Port(("steps_0",), "int32"),
        "mask": Port(("mask_0", 4), "bool"),
        "scale": Port((), "float32"),
    }
    assert network.outputs["y"] == Port(("?", 4), "float16")
    assert network.outputs["later"] == Port(("?",), "int32")
    assert network.examples["x"] == Example((2, 4), -1, 2)
    assert network.examples["scale"] == Example(())
    assert network.details() == {"tensorrt": fake_tensorrt.VERSION, "build_seconds": 12.5}
    assert network.seconds(arrays(3)) > 0


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        (
            {"x": np.zeros((60, 4))},
            IncompatibleModelError,
            "x is 60x4, and .* takes 1x4 to 50x4; bu",
        ),
        ({"ids": np.zeros(0, int)}, IncompatibleModelError, "trt` with --min ids:0 --max ids:50$"),
        (
            {"x": np.zeros((2, 5))},
            UsageError,
            r"x has shape \(2, 5\), but .* takes float16 \(batch",
        ),
        ({"ids": np.zeros(2)}, UsageError, "ids is float64, but"),
        ({"q": 1}, UsageError, "has no input q; it takes x, ids, steps, mask, scale"),
    ],
    ids=str,
)
def test_arrays_that_it_does_not_take(
    engine: Path, changed: dict[str, object], kind: type[DvmsrError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        EngineTensors(engine)(**{**arrays(2), **changed})


def test_the_second_call_with_shapes_is_a_graph(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = []
    graph = cuda_memory.Graph
    launch = graph.launch
    monkeypatch.setattr(graph, "launch", lambda self: (launches.append(self), launch(self)))
    network = EngineTensors(engine)
    for batch in (9, 9, 4, 4, 9):
        network(**arrays(batch))
    assert len(launches) == 3 and len(set(launches)) == 2
    assert network._loaded.engine.contexts == 2


def test_memory_is_reused_and_given_back(engine: Path) -> None:
    before = cuda.load().device().free_bytes
    network = EngineTensors(engine)
    network(**arrays(50))
    taken = network.device_memory()
    assert taken > 50 * 4 * (2 + 1 + 4 + 1)
    for batch in range(1, 40, 7):
        network(**arrays(batch))
    assert network.device_memory() == taken
    del network
    assert cuda.load().device().free_bytes == before


def test_threads_take_turns(engine: Path) -> None:
    network = EngineTensors(engine)
    truths = [network(**arrays(2 + i, seed=i))["y"] for i in range(4)]
    results: dict[int, bool] = {}

    def work(i: int) -> None:
        same = [np.array_equal(network(**arrays(2 + i, seed=i))["y"], truths[i]) for _ in range(3)]
        results[i] = all(same)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), True)


def test_an_input_that_nothing_is_computed_of_is_left_alone(engine: Path, tmp_path: Path) -> None:
    profiles = {**PROFILES, "flag": InputProfile((2,), (2,), (2,))}
    write(engine, mixed_file(tmp_path), profiles=profiles, model=MODEL)
    network = EngineTensors(engine)
    assert network.inputs["flag"] == Port((2,), None)
    given = arrays(2)
    assert network(**given, flag=np.zeros(2, bool))["best"].shape == (2,)
    with pytest.raises(UsageError, match=r"needs the input flag: any type \(2\)"):
        network(**given)


def test_an_engine_with_other_inputs_than_it_is_described_with(
    engine: Path, tmp_path: Path
) -> None:
    fewer = {name: profile for name, profile in PROFILES.items() if name != "mask"}
    write(engine, mixed_file(tmp_path), profiles=fewer, model=MODEL)
    with pytest.raises(IncompatibleModelError, match="has other inputs than it is described with"):
        EngineTensors(engine)


def test_types_that_numpy_lacks(
    engine: Path, tensorrt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = fake_tensorrt.DataType.FP8
    monkeypatch.setattr(tensorrt.ICudaEngine, "get_tensor_dtype", lambda *_: odd)
    with pytest.raises(IncompatibleModelError, match="has FP8 in x, which NumPy lacks"):
        EngineTensors(engine)


def test_bfloat16_comes_and_goes_as_fp32(
    tensorrt: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits travel: rounded on the way in, widened on the way out."""
    text = """<ir_version: 8, opset_import: ["":18]>
    g (bfloat16[N,4] x) => (bfloat16[N,4] y) { y = Identity (x) }"""
    save(parser.parse_model(text), tmp_path / "net.onnx")
    monkeypatch.setitem(
        fake_tensorrt.TYPES, "tensor(bfloat16)", (fake_tensorrt.DataType.BF16, np.uint16)
    )
    monkeypatch.setattr(tensorrt.ICudaEngine, "_computed", lambda self, feeds: [feeds["x"]])
    path = write(
        tmp_path / "b.engine", tmp_path / "net.onnx", profiles={"x": PROFILES["x"]}, model=MODEL
    )
    network = EngineTensors(path)
    assert network.inputs["x"] == Port(("batch", 4), "bfloat16")
    x = np.array([[1.0, -2.5, 1 + 2**-9, 3.4e38]])
    y = network(x=x)["y"]
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y[0, :3], [1.0, -2.5, 1.0])


def test_an_output_whose_size_depends_on_values(
    engine: Path, tensorrt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt.IExecutionContext, "get_tensor_shape", lambda *_: (-1, 4))
    with pytest.raises(
        IncompatibleModelError, match=r"the size of the output y of .* depends on val"
    ):
        EngineTensors(engine)(**arrays(2))


def test_code_for_the_processor_only_where_it_is_trusted(engine: Path, tmp_path: Path) -> None:
    write(engine, mixed_file(tmp_path), profiles=PROFILES, model=MODEL, version_compatible=True)
    with pytest.raises(
        UsageError, match=r"x\.engine carries a runtime of TensorRT, .*trust-engine"
    ):
        EngineTensors(engine)
    assert EngineTensors(engine, trust=True)._loaded.runtime.engine_host_code_allowed


def test_of_another_machine_or_without_tensorrt(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(engine, mixed_file(tmp_path), profiles=PROFILES, model=MODEL, tensorrt="10.3.0")
    with pytest.raises(IncompatibleModelError, match=r"built by TensorRT 10\.3\.0, and this is"):
        EngineTensors(engine)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        MissingComponentError, match=r"was built for .* and TensorRT is not install"
    ):
        EngineTensors(engine)


def test_an_engine_of_dvmsr_takes_arrays_too(
    tensorrt: ModuleType, models: Models, tmp_path: Path
) -> None:
    network = EngineTensors(write(tmp_path / "d.engine", models.onnx))
    assert network.inputs == {"input": Port(("input_0", 3, "input_2", "input_3"), "float32")}
    assert network.examples["input"] == Example((1, 3, 16, 16))
    planes = np.random.default_rng(0).random((2, 3, 5, 7), np.float32)
    truth = OnnxTensors(models.onnx, "portable", None)(input=planes)["output"]
    np.testing.assert_array_equal(network(input=planes)["output"], truth)


def test_pictures_are_not_for_engines_of_other_networks(engine: Path) -> None:
    message = (
        r"x\.engine holds another network than DVMSR, my:net; run it with "
        r"dvmsr\.runtime\.open_model, or compare it with `dvmsr parity`$"
    )
    with pytest.raises(IncompatibleModelError, match=message):
        EngineNetwork(engine)


def test_an_engine_of_tensorrt_for_rtx(
    emulated_gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels are there before a graph is recorded, and kept."""
    module = fake_tensorrt.module(emulated_gpu, PROFILES, fake_tensorrt.RTX_NAME)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(
        tmp_path / "x.engine", mixed_file(tmp_path), profiles=PROFILES, model=MODEL, target="rtx"
    )
    network = EngineTensors(path)
    for batch in (3, 3, 5):
        network(**arrays(batch))
    assert [shapes[0] for shapes in network._loaded.engine.compiled] == [(3, 4), (5, 4)]
    assert len(list((tmp_path / "cache").rglob("*.kernels"))) == 1
