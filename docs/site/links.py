"""What the site needs besides the pages in `docs`: pages that lie elsewhere, and where links go.

A hook of MkDocs. In the repository all links are relative to the file that they stand in. On the
site, those to pages are as they were, wherever the page lies; what is no page is named without a
link.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {
    "dvmsr/weights/README.md": "model-card.md",
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages of the site by where they lie in the repository."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, name in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """A page with links that lead somewhere on the site."""
    pages = {Path(it.abs_src_path).resolve(): it.src_uri for it in files if it.abs_src_path}
    source = Path(str(page.file.abs_src_path)).resolve()

    def rewritten(match: re.Match[str]) -> str:
        picture, text, target, anchor = match.groups(default="")
        name = pages.get((source.parent / target).resolve())
        if name is None:
            return match[0] if picture else text
        here = os.path.relpath(name, Path(page.file.src_uri).parent)
        return f"{picture}[{text}]({here}{anchor})"

    return _LINK.sub(rewritten, markdown)
