"""The service with a small network, and one that never ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from endless_model import save_endless
from fastapi.testclient import TestClient
from small_model import CONFIG

from dvmsr.runtime.serving import application
from dvmsr.runtime.serving.limits import Limits
from dvmsr.runtime.serving.models import open_models
from dvmsr.utils.console import warnings_to

LIMITS = Limits(pixels=5000, bytes=200_000, queue=4, per_client=3, seconds=60)
HOST = "127.0.0.1"


@pytest.fixture(scope="session")
def model_files(streaming_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """`small.onnx`, which streams, and `endless.onnx`."""
    folder = tmp_path_factory.mktemp("served")
    return [streaming_file, save_endless(folder / "endless.onnx", CONFIG)]


@pytest.fixture
def client(model_files: list[Path]) -> Iterator[Callable[..., TestClient]]:
    """Makes one of a service: limits that differ from `LIMITS`, or `names` and `token`."""
    with ExitStack() as until:

        def make(
            names: set[str] | None = None, token: str | None = None, **limits: Any
        ) -> TestClient:
            with warnings_to(lambda text: None):  # the endless one has no native operators
                opened = open_models([*map(str, model_files)], threads=1)
            built = application.build(opened, replace(LIMITS, **limits), names, token)
            return until.enter_context(TestClient(built, f"http://{HOST}"))

        yield make
