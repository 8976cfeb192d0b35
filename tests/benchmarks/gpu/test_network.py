"""The measurement of the network, with PyTorch's GPU played by the processor."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from shared import REPOSITORY, official_weights

torch = pytest.importorskip("torch")
network = pytest.importorskip("network")

pytestmark = pytest.mark.slow

STUDENT = REPOSITORY / "dvmsr" / "weights" / "dvmsr_x4.safetensors"


@pytest.fixture
def played_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(self: Any) -> Any:
        return self

    def elapsed(work: Callable[[], Any]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def graphed(model: Callable[[Any], Any], image: Any) -> Callable[[], Any]:
        return lambda: model(image)

    # Stand-ins for it may be left by other tests.
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    monkeypatch.setattr(torch.nn.Module, "cuda", same)
    monkeypatch.setattr(torch.Tensor, "cuda", same)
    monkeypatch.setattr(network, "elapsed", elapsed)
    monkeypatch.setattr(network, "graphed", graphed)
    monkeypatch.setattr(network, "peak_bytes", lambda work: 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("with_rlfn", [False, True], ids=["without RLFN", "with RLFN"])
def test_every_contestant_is_timed_and_held_to_fp32(
    played_gpu: None, dtype: Any, with_rlfn: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    rlfn = official_weights("rlfn_ntire") if with_rlfn else None
    arguments = argparse.Namespace(dvmsr=STUDENT, rlfn=rlfn)
    image = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        truth = {"dvmsr": network.checkpoint.load(STUDENT).eval()(image)}
        if rlfn:
            truth["rlfn"] = network.rlfn.load(rlfn)(255 * image)
        found = network.measure(arguments, image, truth, dtype, (6, 30.0))
    names = [one["name"] for one in found]
    assert names == ["dvmsr, eager", "dvmsr, CUDA graph"] + (
        ["RLFN, eager", "RLFN, CUDA graph"] if with_rlfn else []
    )
    assert "dvmsr, mamba-ssm, eager does not take part: " in capsys.readouterr().err
    for one in found:
        assert one["size"] == "24x20"
        assert one["rounds"] == 6
        assert one["times"]["p50_ms"] > 0
        assert one["ratio_to"] == "dvmsr, eager"
        if dtype == torch.float32:
            assert one["against_cpu_fp32"]["max_abs"] <= 2e-4
        else:
            assert one["against_cpu_fp32"]["psnr_db"] >= 50


def test_without_a_gpu_it_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["network.py", str(STUDENT)])
    with pytest.raises(network.MissingComponentError, match="PyTorch sees no GPU here"):
        network.main()
