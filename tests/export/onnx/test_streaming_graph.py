"""The exported step against PyTorch on the whole image."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SMALL, random_network
from shared import official_weights, requires_shared

from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig
from dvmsr.data.natural_image import natural_image
from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.export import cli, export_onnx
from dvmsr.kernels import cpu
from dvmsr.model import DVMSR
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.network import options_for
from dvmsr.runtime.backends.onnxrt.onnx_file import read_header
from dvmsr.runtime.backends.onnxrt.streaming import StreamingNetwork, open_onnx
from dvmsr.strips import states

LIMIT = 1e-4
"""Largest difference in an output whose range is about 1, FP32."""
FP16_LIMIT = 2e-2

BACKENDS = ["portable"] if cpu.library_path() is None else ["native", "portable"]
CONFIGS = {
    "x2": SMALL,
    "x3": replace(SMALL, scale=3),
    "pixelshuffle-x3": replace(SMALL, upsampler="pixelshuffle", scale=3),
    "pixelshuffle-x4": replace(SMALL, upsampler="pixelshuffle", scale=4),
    "depths-1-2-residual": replace(SMALL, depths=(1, 2), vimm_residual=True),
    "odd-sizes": DVMSRConfig(channels=17, depths=(1,), state=3, expand=3, conv_width=2, scale=2),
    "one-tap": replace(SMALL, conv_width=1),
}


def silent(line: str) -> None:
    pass


def exported(network: DVMSR, path: Path, precision: str = "fp32") -> Path:
    export_onnx(network, path, precision=precision, streaming=True, verify=False, progress=silent)
    onnx.checker.check_model(str(path), full_check=True)
    onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    return path


def difference(
    session: StreamingNetwork, network: DVMSR, image: np.ndarray, rows: list[int]
) -> float:
    strips = np.split(image, np.cumsum(rows)[:-1], 2)
    streamed = np.concatenate(list(session.stream(strips)), 2)
    with torch.inference_mode():
        whole = network(torch.from_numpy(image)).numpy()
    assert streamed.shape == whole.shape
    return float(np.abs(streamed - whole).max())


def cut(height: int, rows: int) -> list[int]:
    return [min(rows, height - start) for start in range(0, height, rows)]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_strips_equal_pytorch(tmp_path: Path, config: DVMSRConfig) -> None:
    network, image = random_network(config), natural_image((2, 13, 5))
    session = open_onnx(exported(network, tmp_path / "net.onnx"), BACKENDS[0], 1)
    assert isinstance(session, StreamingNetwork)
    for rows in (1, 5, 13):
        assert difference(session, network, image, cut(13, rows)) <= LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_student(tmp_path: Path, backend: str, precision: str) -> None:
    network = random_network(DVMSRConfig(), spread=0.02)
    session = StreamingNetwork(exported(network, tmp_path / "net.onnx", precision), backend, 1)
    limit = LIMIT if precision == "fp32" else FP16_LIMIT
    for height, width, rows in ((1, 1, 1), (7, 9, 3), (8, 1, 1), (30, 11, 7)):
        image = natural_image((1, height, width))
        assert difference(session, network, image, cut(height, rows)) <= limit


@given(
    rows=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    width=st.integers(1, 9),
)
@settings(max_examples=25, deadline=None)
def test_any_strips(
    any_strips: tuple[StreamingNetwork, DVMSR], rows: list[int], width: int
) -> None:
    assert difference(*any_strips, natural_image((1, sum(rows), width)), rows) <= LIMIT


@pytest.fixture(scope="module")
def any_strips(tmp_path_factory: pytest.TempPathFactory) -> tuple[StreamingNetwork, DVMSR]:
    network = random_network(replace(SMALL, depths=(1, 1)))
    path = exported(network, tmp_path_factory.mktemp("model") / "net.onnx")
    return StreamingNetwork(path, BACKENDS[0], 1), network


@pytest.mark.slow
@requires_shared
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 16, 64])
def test_the_official_student(tmp_path: Path, rows: int) -> None:
    network = checkpoint.load(official_weights("dvmsr_df2k"))
    session = StreamingNetwork(exported(network, tmp_path / "net.onnx"), BACKENDS[0], 1)
    assert difference(session, network, natural_image((1, 75, 40)), cut(75, rows)) <= LIMIT


def test_inputs_and_outputs_are_the_described_states(tmp_path: Path) -> None:
    network = random_network(replace(SMALL, depths=(2, 1)))
    path = exported(network, tmp_path / "net.onnx", "fp16")
    graph = onnx.load(path).graph
    named = states(network.config)
    assert [value.name for value in graph.input[3:]] == [state.name for state in named]
    assert [value.name for value in graph.output[1:]] == [state.next for state in named]
    for state, before, after in zip(named, graph.input[3:], graph.output[1:], strict=True):
        kind = onnx.TensorProto.FLOAT if state.always_fp32 else onnx.TensorProto.FLOAT16
        for value in (before, after):
            tensor = value.type.tensor_type
            assert tensor.elem_type == kind
            assert len(tensor.shape.dim) == 1 + len(state.sizes)
    count = Counter(node.op_type for node in graph.node)
    assert count["MambaMixer"] == 3
    assert not {"Loop", "Scan", "If"} & set(count)
    assert read_header(path).streaming


def test_a_bidirectional_network_is_refused(tmp_path: Path) -> None:
    network = random_network(replace(SMALL, bidirectional=True))
    with pytest.raises(IncompatibleModelError, match="backward scans begin at the last pixel"):
        exported(network, tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="leave out the static shape"):
        export_onnx(network, tmp_path / "net.onnx", static_shape=(1, 5, 5), streaming=True)
    assert not list(tmp_path.iterdir())


def test_command_verifies_by_strips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(random_network(), tmp_path / "net.safetensors")
    monkeypatch.chdir(tmp_path)
    arguments = ["dvmsr-export", "onnx", "net.safetensors", "--streaming", "--json"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as exit:
        cli.main()
    assert not exit.value.code
    report = json.loads(capsys.readouterr().out)
    assert report["path"] == "net.streaming.onnx"
    assert {parity["backend"] for parity in report["parity"]} == set(BACKENDS)


def test_bodies_keep_rows_before_onnx_runtime_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the strips that they are of do not wait in memory until all is done."""

    def profiled(backend: str, threads: int | None) -> onnxruntime.SessionOptions:
        options = options_for(backend, threads)
        options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
        return options

    monkeypatch.setattr("dvmsr.runtime.backends.onnxrt.network.options_for", profiled)
    network = open_onnx(exported(random_network(SMALL), tmp_path / "m.onnx"), "portable", 1)
    assert isinstance(network, StreamingNetwork)
    list(network.stream([np.zeros((1, 3, 8, 4), np.float32)]))
    events = json.loads(Path(network._session.end_profiling()).read_text())
    ran = [event["name"] for event in events if event["name"].endswith("_kernel_time")]
    kept = [i for i, name in enumerate(ran) if name.endswith("/next_kernel_time")]
    assert len(kept) == len([state for state in states(SMALL) if len(state.sizes) == 3])
    assert max(kept) < ran.index("output/from_pixels_kernel_time")
