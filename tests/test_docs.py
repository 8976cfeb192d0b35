"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shared import REPOSITORY

OURS = ("benchmarks", "docs", "dvmsr", "examples", "export", "plugins", "runtime", "tests")
DOCUMENTS = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(path for top in OURS for path in REPOSITORY.glob(f"{top}/**/*.md")),
    ]
)
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
_PATH = re.compile(rf"`((?:{'|'.join(OURS)})/[\w./*-]+)`")
_MODULE = re.compile(r"`(dvmsr(?:\.[a-z_]\w*)+)")
BUILT = ("dvmsr/_native", "benchmarks/gpu/carry/")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_paths_and_modules_exist(path: Path) -> None:
    text = path.read_text()
    missing = [name for name in _LINK.findall(text) if not (path.parent / name).exists()]
    missing += [name for name in _PATH.findall(text) if not list(REPOSITORY.glob(name))]
    missing += [name for name in _MODULE.findall(text) if not _is_module_or_in_one(name)]
    assert not [name for name in missing if name not in BUILT]


def _is_module_or_in_one(name: str) -> bool:
    place = REPOSITORY / name.replace(".", "/")
    if place.is_dir() or place.with_suffix(".py").exists():
        return True
    module = place.parent.with_suffix(".py")
    source = module if module.exists() else place.parent / "__init__.py"
    return source.exists() and place.name in source.read_text()
