from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared import REPOSITORY

HOME = "runtime/backends/onnxrt/library.py"
SWITCH = "ORT_DISABLE_TELEMETRY"
FOLDERS = ("benchmarks", "dvmsr", "examples", "export", "runtime", "tests")
PROGRAM = (
    "import os, numpy\n"
    "from dvmsr.runtime import Upscaler\n"
    "Upscaler.from_file(threads=1)(numpy.zeros((4, 4, 3), 'uint8'))\n"
    f"print(os.environ['{SWITCH}'])"
)


def run(folder: Path, **environment: str) -> tuple[str, list[Path]]:
    """Enlarge a picture as a new user: the switch, and what lies in the home folder then."""
    cache = folder / "cache"
    cache.mkdir()
    known = {name: value for name, value in os.environ.items() if name != SWITCH}
    given = {**known, "HOME": str(folder), "XDG_CACHE_HOME": str(cache), **environment}
    command = [sys.executable, "-c", PROGRAM]
    output = subprocess.run(command, env=given, check=True, capture_output=True, text=True).stdout
    return output.strip(), [path for path in folder.rglob("*") if path != cache]


def test_leaves_nothing_behind(tmp_path: Path) -> None:
    assert run(tmp_path) == ("1", [])


def test_an_empty_setting_is_none(tmp_path: Path) -> None:
    assert run(tmp_path, **{SWITCH: ""}) == ("1", [])


def test_the_user_decides(tmp_path: Path) -> None:
    # With 0 it would write, and so it is not run with that here.
    assert run(tmp_path, **{SWITCH: "true"})[0] == "true"


def imports(path: Path) -> Iterator[str]:
    """What a file imports by statements, and what calls such as `import_module` are given."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            yield from (str(word.value) for word in node.args if isinstance(word, ast.Constant))


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_imports_it_elsewhere(folder: str) -> None:
    found = {
        path.relative_to(REPOSITORY).as_posix()
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        if any(name.split(".")[0] == "onnxruntime" for name in imports(path))
    }
    assert found <= {HOME, f"dvmsr/{HOME}"}  # below dvmsr, too, where links are followed
