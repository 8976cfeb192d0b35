"""What the documents name is there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from importlib.util import find_spec
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


def test_what_is_written_for_a_repository_makes_its_imports_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of docs/networks.md, with a network that imports as MambaIR's and Vim's do."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/networks.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "basicsr/archs").mkdir(parents=True)
    (tmp_path / "basicsr/__init__.py").write_text("import cv2_that_is_not_here")
    (tmp_path / "basicsr/archs/some_arch.py").write_text(
        "from timm.models.layers import DropPath, lecun_normal_, to_2tuple, trunc_normal_\n"
        "from timm.models.registry import register_model\n"
        "from timm.models.vision_transformer import VisionTransformer, _cfg, _load_weights\n"
        "sizes = to_2tuple(3), to_2tuple((4, 5))\n"
    )
    before = dict(sys.modules)
    try:
        exec(next(block for block in blocks if "def stand_in(" in block), {})
        assert importlib.import_module("basicsr.archs.some_arch").sizes == ((3, 3), (4, 5))
    finally:
        for name in sys.modules.keys() - before.keys():
            del sys.modules[name]
        sys.modules.update(before)


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("mkdocstrings"), reason="needs MkDocs (make docs)")
def test_the_site_has_all_pages_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    """A warning, as of a link that leads nowhere or a page that is not listed, ends the build."""
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    menu = (REPOSITORY / "mkdocs.yml").read_text().partition("nav:")[2]
    for page in (REPOSITORY / "docs").glob("*.md"):
        assert f" {page.name}\n" in menu and (tmp_path / f"site/{page.stem}.html").is_file()
    for page in (tmp_path / "site").glob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)[^>]*(?:src|href)=.?https?:", page.read_text()
        )
        assert not loaded
    assert 'id="dvmsr.config.DVMSRConfig.dt_rank"' in (tmp_path / "site/api.html").read_text()


def _is_module_or_in_one(name: str) -> bool:
    place = REPOSITORY / name.replace(".", "/")
    if place.is_dir() or place.with_suffix(".py").exists():
        return True
    module = place.parent.with_suffix(".py")
    source = module if module.exists() else place.parent / "__init__.py"
    return source.exists() and place.name in source.read_text()
