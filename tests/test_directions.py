"""The directions in which imports run: from rooms that know much to rooms that know little.

A room is a folder; each file beside folders counts as its own. Imports inside functions and under
`TYPE_CHECKING` count like all others.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from shared import REPOSITORY as ROOT

LOW = "errors utils config strips kernels"
MAY_IMPORT = {
    "dvmsr": "",
    "errors": "",
    "entry": "cli export/cli runtime/cli",
    "utils": "errors",
    "config": "errors utils",
    "strips": "errors utils config",
    "kernels": "errors utils",
    "weights": "errors utils",
    "ops": "errors utils kernels",
    "compat": "errors ops",
    "model": f"{LOW} ops",
    "analysis": f"{LOW} ops model",
    "checkpoint": f"{LOW} ops model weights",
    "streaming": f"{LOW} ops model",
    "networks": f"{LOW} ops model weights checkpoint",
    "info": f"{LOW} weights analysis checkpoint network_info runtime/backends",
    "network_info": "errors utils weights runtime/backends",
    "data": "errors utils runtime/images",
    "eval/metrics": "errors data",
    "viewer": "",
    "eval": "errors utils weights data viewer runtime/images runtime/upscaler runtime/spec runtime",
    "lam": f"{LOW} weights networks data eval runtime/images runtime/parity",
    "train": f"{LOW} ops model weights checkpoint networks data eval runtime/images runtime/memory",
    "cli": "utils weights eval info lam runtime/commands train/command",
    "runtime": "runtime/upscaler runtime/tensors",
    "runtime/tensors": "errors utils weights runtime/backends",
    "runtime/images": "errors utils",
    "runtime/video": "errors utils runtime/upscaler",
    "runtime/storage": "errors utils runtime/images runtime/video/containers",
    "runtime/backends": f"{LOW} runtime/images/arrays",
    "runtime/backends/table": "errors utils kernels weights runtime/backends",
    "runtime/backends/pytorch": f"{LOW} model checkpoint streaming networks compat "
    "runtime/images/arrays runtime/backends/base runtime/backends/tensors",
    "runtime/backends/onnxrt/foreign": f"{LOW} weights data/natural_image runtime/backends",
    "runtime/memory": f"{LOW}",
    "runtime/strip_height": f"{LOW} runtime/memory",
    "runtime/upscaler": f"{LOW} weights runtime/images runtime/backends runtime/memory "
    "runtime/strip_height",
    "runtime/spec": "errors utils runtime/backends weights runtime/tensors runtime/upscaler",
    "runtime/inputs": "errors utils runtime/backends/tensors",
    "runtime/parity": f"{LOW} data eval/metrics runtime/images runtime/backends runtime/memory "
    "runtime/spec runtime/inputs runtime/storage runtime/upscaler",
    "runtime/bench": f"{LOW} data runtime/images runtime/backends runtime/memory runtime/spec "
    "runtime/inputs runtime/upscaler",
    "runtime/commands": "utils runtime/bench runtime/parity runtime/serving",
    "runtime/infer": f"{LOW} weights runtime/backends/table runtime/images runtime/memory "
    "runtime/storage runtime/upscaler runtime/video",
    "runtime/serving": "dvmsr errors utils weights viewer runtime/images runtime/memory "
    "runtime/infer runtime/upscaler",
    "runtime/cli": f"{LOW} weights runtime/backends/table runtime/images runtime/infer "
    "runtime/storage runtime/upscaler runtime/video",
    "export": "export/onnx export/network",
    "export/onnx": f"{LOW} ops model weights checkpoint networks data runtime/backends "
    "runtime/memory runtime/parity",
    "export/network": "errors utils kernels ops weights networks compat export/onnx "
    "runtime/backends/onnxrt runtime/backends/pytorch/ports "
    "runtime/parity/difference",
    "export/plugin": "errors utils kernels runtime/backends/trt",
    "export/trt": f"{LOW} weights data/natural_image export/onnx export/plugin runtime/backends "
    "runtime/memory runtime/parity runtime/upscaler",
    "export/triton": "errors utils kernels weights runtime runtime/backends "
    "runtime/infer/options runtime/serving/encoded runtime/serving/enlarging "
    "runtime/serving/refusals runtime/tensors runtime/upscaler",
    "export/cli": "errors utils weights export",
}
"""What the files of a room may import besides each other. Of several lines that fit a file, the
longest counts; a name stands for all that lies below it."""

BY_NAME = {"import_module", "command", "_run"}
"""What imports a module whose name it is given."""
TOP = {"dvmsr", "runtime", "export"}
"""Of these the lines are for the packages' own `__init__` alone."""

_TORCHLESS = "dvmsr entry errors utils config strips kernels weights data runtime"
_PLAIN = "runtime/images runtime/video runtime/storage runtime/backends runtime/infer"
NEVER = {
    **{key: {"torch"} for key in _TORCHLESS.split()},
    **{key: {"torch", "typer"} for key in _PLAIN.split()},
    "runtime/backends/pytorch": {"typer"},
}
"""Packages of others that a room does not import; again the longest line counts."""


def _files() -> dict[str, Path]:
    """Every file of the sources by its name, such as `runtime/images/decode`; a package's
    `__init__` has the name of its folder."""
    found = {}
    for top in ("dvmsr", "export", "runtime"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__")
            if not name.startswith(("dvmsr/export/", "dvmsr/runtime/", "dvmsr/plugins/")):
                found[name.removeprefix("dvmsr/")] = path
    return found


def _imported(path: Path) -> Iterator[str]:
    """The dotted names of what may be modules among what a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in BY_NAME:
            yield from (str(word.value) for word in node.args if isinstance(word, ast.Constant))


def _arrows() -> dict[str, set[str]]:
    """For every file those that it imports."""
    arrows: dict[str, set[str]] = {}
    for name, path in FILES.items():
        arrows[name] = set()
        for dotted in _imported(path):
            parts = dotted.split(".")
            if parts.pop(0) != "dvmsr":
                continue
            while parts and "/".join(parts) not in FILES:
                parts.pop()
            arrows[name].add("/".join(parts) or "dvmsr")
        arrows[name] -= {name, "dvmsr"}
    return arrows


FILES = _files()
ARROWS = _arrows()


def _line(table: Iterable[str], name: str) -> str | None:
    """The longest name of a table that a file is, or lies below."""
    return max((room for room in table if _lies_in(name, room)), key=len, default=None)


def _lies_in(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}/")


def _circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Those who reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            for other in arrows.get(left.pop(), set()) - seen:
                seen.add(other)
                left.append(other)
        return seen

    reach = {name: reached(name) for name in arrows}
    circles = {
        frozenset(other for other in reach[name] if name in reach.get(other, ())) for name in arrows
    }
    return sorted(sorted(circle) for circle in circles if circle)


@pytest.mark.parametrize("name", sorted(FILES.keys()))
def test_imports_only_what_its_room_may(name: str) -> None:
    room = name if name in TOP else _line(MAY_IMPORT.keys() - TOP, name)
    assert room is not None, "it has no line in MAY_IMPORT"
    allowed = [*({room} - TOP), *MAY_IMPORT[room].split()]
    wrong = {
        other for other in ARROWS[name] if not any(_lies_in(other, there) for there in allowed)
    }
    assert not wrong


@pytest.mark.parametrize("name", sorted(FILES.keys()))
def test_imports_no_package_that_its_room_avoids(name: str) -> None:
    avoided = NEVER.get(_line(NEVER, name) or "", set())
    assert not avoided & {dotted.split(".")[0] for dotted in _imported(FILES[name])}


def test_no_import_is_relative() -> None:
    for path in FILES.values():
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes), path


def test_files_import_each_other_in_no_circle() -> None:
    assert not _circles(ARROWS)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_rooms_import_each_other_in_no_circle(depth: int) -> None:
    """Files that lie deeper are taken together by their first folders."""

    def room(name: str) -> str:
        top = name.startswith(("runtime/", "export/"))
        return "/".join(name.split("/")[: depth + top])

    arrows: dict[str, set[str]] = {}
    for name, others in ARROWS.items():
        to = {room(other) for other in others} - {room(name)}
        arrows.setdefault(room(name), set()).update(to)
    assert not _circles(arrows)


def _rooms_of_the_map() -> set[str]:
    """The folders that CONTRIBUTING.md's list names, braces written out."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    block = re.search(r"<!-- rooms:.*?-->\n```\n(.*?)```", text, re.DOTALL)
    assert block
    return {room for line in block[1].splitlines() for room in _spelt_out(line.split()[0])}


def _spelt_out(pattern: str) -> list[str]:
    """`a/{b,c/{d}}` -> a, a/b, a/c, a/c/d; a folder before braces that are not its only content
    counts as well."""
    folder, brace, rest = pattern.partition("/{")
    if not brace:
        return [pattern]
    parts, depth, start = [], 0, 0
    inner = rest.removesuffix("}")
    for place, sign in enumerate([*inner, ","]):
        depth += (sign == "{") - (sign == "}")
        if sign == "," and not depth:
            parts.append(inner[start:place])
            start = place + 1
    return [folder, *(f"{folder}/{room}" for part in parts for room in _spelt_out(part))]


def test_the_map_for_newcomers_names_every_room() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for path in FILES.values()}
    assert _rooms_of_the_map() == folders
