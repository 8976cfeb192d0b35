"""A server that serves what the command wrote."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from triton_server import Installation, Server, skip_without_triton, triton_serving

from dvmsr.export import cli

Export = Callable[..., int]


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> Export:
    """Runs `dvmsr-export triton` in this process: arguments -> exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["dvmsr-export", "triton", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        return int(exit.value.code or 0)

    return run


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The server, not started."""
    skip_without_triton()
    return Installation.make(tmp_path_factory.mktemp("triton"))


@pytest.fixture(scope="session")
def server(
    triton: Installation,
    exported: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """One of `student` and of two networks of others, by the Python backend."""
    from dvmsr.export.triton.export import export_triton
    from dvmsr.export.triton.layout import Request

    folder = tmp_path_factory.mktemp("served")
    models = folder / "models"
    files = [str(exported(name)) for name in ("gated", "enlarge")]
    export_triton(["student", *files], models, Request(models), "python")
    with triton_serving(triton, models, folder / "log", "--log-verbose=1") as started:
        yield started
