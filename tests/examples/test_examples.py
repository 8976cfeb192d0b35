"""The programs in `examples`, run as their first lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rtx import skip_without_rtx
from service import serving
from shared import REPOSITORY
from tensorrt_library import build as build_plugin
from triton_server import Installation, skip_without_triton, triton_serving

from dvmsr.runtime.backends.trt import plugin_library

EXAMPLES = REPOSITORY / "examples"
CAT = EXAMPLES / "chelsea.png"

pytestmark = pytest.mark.slow


def run(folder: Path, name: str, *arguments: object, **environment: str) -> str:
    """What an example prints, run in a folder."""
    program = [sys.executable] if name.endswith(".py") else []
    scripts = Path(sys.executable).parent
    ran = subprocess.run(
        [*program, EXAMPLES / name, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_picture(tmp_path: Path) -> None:
    assert run(tmp_path, "picture.py", CAT, "large.png") == "large.png: 1804x1200\n"
    with Image.open(tmp_path / "large.png") as image:
        assert image.size == (1804, 1200)


def test_a_client_of_the_service(tmp_path: Path) -> None:
    with serving("--model", "student-x2") as (url, _):
        assert run(tmp_path, "serve.py", f"{url}/", CAT, "large.png") == "large.png\n"
    with Image.open(tmp_path / "large.png") as image:
        assert image.size == (902, 600)


def test_a_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, "checkpoint.sh", CAT, CAT, 2)
    with Image.open(tmp_path / "run" / "large.png") as image:
        assert image.size == (1804, 1200)


def test_a_network(tmp_path: Path) -> None:
    printed = run(tmp_path, "network.py", "c.onnx")
    assert "MambaMixer" in printed
    (difference,) = re.findall(r"largest difference to PyTorch: (.*)", printed)
    assert float(difference) < 1e-5


def test_an_engine(tmp_path: Path) -> None:
    skip_without_rtx()
    library = {plugin_library.ENVIRONMENT: str(build_plugin("found").pure)}
    printed = run(tmp_path, "engine.sh", "student", "x.engine", **library)
    assert "fp16" in printed and (tmp_path / "x.engine").is_file()


def test_a_server(tmp_path: Path) -> None:
    skip_without_triton()
    (tmp_path / "triton").mkdir()
    installation = Installation.make(tmp_path / "triton")
    assert run(tmp_path, "triton.sh", "models") == "models\n"
    with triton_serving(installation, tmp_path / "models", tmp_path / "log") as server:
        assert run(tmp_path, "triton.sh", "models", server.http, CAT, "large.png") == ""
    run(tmp_path, "picture.py", CAT, "same.png")
    with Image.open(tmp_path / "large.png") as made, Image.open(tmp_path / "same.png") as same:
        assert made.tobytes() == same.tobytes()


def test_all_examples_are_told_of_and_run_here() -> None:
    told = (EXAMPLES / "README.md").read_text()
    source = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".sh"):
            assert f"`{path.name}`" in told and f'"{path.name}"' in source
