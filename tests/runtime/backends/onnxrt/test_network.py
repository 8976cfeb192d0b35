"""What becomes of a machine that has no memory, no threads or no provider left."""

from __future__ import annotations

import numpy as np
import pytest
from no_threads import refuse_threads
from small_model import Models

from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.network import OnnxNetwork, open_session


@pytest.mark.parametrize(
    ("provider", "said", "kind", "sentence"),
    [
        ("CPU", "env.cc:327 pthread_create failed, error code: 11", DvmsrError, "no further thr"),
        ("CUDA", "env.cc:327 pthread_create failed, error code: 11", DvmsrError, "no further thr"),
        ("CPU", "Exception during initialization: std::bad_alloc", DvmsrError, "needs more memory"),
        ("CPU", "no such operator", IncompatibleModelError, r"\(no such operator\); export it"),
        ("CUDA", "CUDA failure 35", MissingComponentError, "CUDA provider does not load"),
    ],
)
def test_a_session_that_cannot_be_made(
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    provider: str,
    said: str,
    kind: type[DvmsrError],
    sentence: str,
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError(said)

    inner = onnxruntime.capi.onnxruntime_inference_collection.C
    monkeypatch.setattr(inner, "InferenceSession", fail)
    options = onnxruntime.SessionOptions()
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(inner, "get_available_providers", lambda: available)
    with pytest.raises(kind, match=sentence) as caught:
        open_session(str(models.onnx), options, models.onnx, f"{provider}ExecutionProvider")
    assert type(caught.value) is kind
    assert capsys.readouterr() == ("", "")  # it is not tried again, which would be told there


def test_no_thread_to_run_in(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    network = OnnxNetwork(models.onnx, "portable", 1)
    image = np.zeros((1, 3, 4, 4), np.float32)
    with monkeypatch.context() as patch:
        refuse_threads(patch)
        with pytest.raises(DvmsrError, match=r"^no further thread or process can be started; end"):
            network(image)
    assert network(image).shape == (1, 3, 8, 8)
