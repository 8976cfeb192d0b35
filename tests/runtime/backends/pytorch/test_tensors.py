"""Networks in PyTorch for arrays: what they take and return, and what is refused."""

from __future__ import annotations

import sys

import mamba_patterns
import numpy as np
import pytest
import torch
from small_model import Models

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.runtime import open_model
from dvmsr.runtime.backends.tensors import Port


def test_a_factory_is_what_pytorch_computes() -> None:
    model = open_model("mamba_patterns:gated")
    assert (model.backend, model.precision) == ("torch", "fp32")
    assert model.inputs == {"tokens": Port(None, None), "scale": Port(None, None, optional=True)}
    tokens = np.random.default_rng(0).random((1, 5, 8))  # FP64, which is converted
    given = torch.from_numpy(tokens).float()
    with torch.inference_mode():
        truth = mamba_patterns.gated()(given)
        scaled = mamba_patterns.gated()(given, torch.tensor(2.0))
    outputs = model(tokens=tokens)
    assert list(outputs) == list(model.outputs) == ["tokens", "states"]
    np.testing.assert_array_equal(outputs["states"], truth["states"])
    doubled = model(tokens=tokens, scale=np.float32(2))
    np.testing.assert_array_equal(doubled["tokens"], scaled["tokens"])


def test_a_networks_changes_stay_its_own() -> None:
    model = open_model("own_network:named")
    x = np.ones((2, 3), np.float32)
    x.flags.writeable = False
    outputs = model(x=x[:, ::-1], shift=np.arange(3))
    assert x.max() == 1
    assert outputs["output_0"].max() == 2
    np.testing.assert_array_equal(outputs["output_1"], [1, 2, 3])


def test_weights_of_bfloat16() -> None:
    model = open_model("own_network:halved")
    assert model.precision == "bf16"
    (output,) = model(input=np.ones((1, 8), np.float32)).values()
    assert (output.dtype, output.shape) == (np.float32, (1, 4))


def test_checkpoints_of_dvmsr(models: Models) -> None:
    image = np.random.default_rng(0).random((1, 3, 5, 6), np.float32)
    (ours,) = open_model(models.safetensors)(image=image).values()
    (theirs,) = open_model(models.onnx, "portable")(input=image).values()
    assert abs(ours - theirs).max() < 1e-5
    assert open_model("student", "torch").backend == "torch"


@pytest.mark.parametrize(
    ("arrays", "kind", "message"),
    [
        ({}, UsageError, "mamba_patterns:gated needs the input tokens: any array"),
        ({"x": np.ones(1)}, UsageError, "has no input x; it takes tokens, scale"),
        ({"tokens": np.array(["a"])}, UsageError, "tokens is <U1, which PyTorch does not know"),
        ({"tokens": np.ones((1, 5, 9))}, DvmsrError, r"fails on these inputs \(RuntimeError: mat"),
    ],
)
def test_bad_arrays(arrays: dict[str, np.ndarray], kind: type[DvmsrError], message: str) -> None:
    with pytest.raises(kind, match=message):
        open_model("mamba_patterns:gated")(**arrays)


def test_weights_elsewhere_are_refused() -> None:
    with pytest.raises(UsageError, match="has weights on meta; return the network on the CPU"):
        open_model("own_network:elsewhere")


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingComponentError, match=r"runs in PyTorch, which needs torch: pip"):
        open_model("mamba_patterns:gated")
