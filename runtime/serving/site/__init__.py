"""The files of the page, by the paths under which they are served."""

from pathlib import Path

from dvmsr import viewer

_FOLDER = Path(__file__).parent
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def files() -> dict[str, tuple[bytes, str]]:
    """Content and media type of each; all of them are read anew."""
    page = (
        (_FOLDER / "index.html")
        .read_text("utf-8")
        .replace("<!--viewer-->", viewer.markup('<div id="pictures"></div>'))
    )
    found = {"/": (page.encode(), "text/html")}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _KINDS:
            found[f"/{path.name}"] = path.read_bytes(), _KINDS[path.suffix]
    found["/viewer.js"] = viewer.script().encode(), _KINDS[".js"]
    found["/viewer.css"] = viewer.style().encode(), _KINDS[".css"]
    return found
