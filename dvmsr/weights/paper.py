"""The weights of the paper's authors, fetched when they are first named and kept in the cache.

They are theirs, under the MIT licence, and not part of dvmsr. What is fetched is one commit's file
of a known SHA-256. Its ONNX file is made of the bundled one, which holds the same architecture.
"""

from dataclasses import dataclass
from pathlib import Path

from dvmsr.errors import MissingComponentError
from dvmsr.utils import cache, offline
from dvmsr.utils.console import notice
from dvmsr.utils.sizes import in_words

REPOSITORY = "nathan66666/DVMSR"
COMMIT = "86663ce906aab91c31ee5bf69bebc1ad61537405"
ADDRESS = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/model_zoo"


@dataclass(frozen=True)
class Published:
    """A checkpoint in that folder."""

    file: str
    size: int
    """Bytes."""
    sha256: str
    what: str


FILES = {
    "paper": Published(
        "DVMSR.pth",
        3_473_666,
        "b9993f169da81ee63c4b5d4fc770c2f05a4af1e9481aa18a16577fe78fb6f174",
        "the weights of the paper's student",
    ),
    "paper-ntire": Published(
        "team07_DVMSR.pth",
        1_732_546,
        "37ff9ece556b84e2aa63533d0d1a0ee27ab63cc6a46d4df8f6bfa16e325d34fe",
        "the weights that its authors released for NTIRE 2024",
    ),
}
"""By the names that users give; all fit the configuration of the bundled student."""


def checkpoint(name: str) -> Path:
    """The `.pth` file of one of `FILES`, fetched unless it is there.

    Raises:
        MissingComponentError: if it is not, and may not be fetched.
        DvmsrError: if it cannot be fetched or kept.
    """
    published = FILES[name]
    path = cache.folder(cache.WEIGHTS) / published.file
    if cache.holds(path, published.sha256):
        return path
    url = f"{ADDRESS}/{published.file}"
    if offline.is_asked():
        raise MissingComponentError(
            f"{published.what} are not in {path}, and offline they are not fetched; run it once "
            f"without --offline and {offline.VARIABLE}, or put {url} there"
        )
    notice(
        f"fetching {published.what}, {in_words(published.size)}, once, from {url}; they are under "
        "the MIT licence, see there"
    )
    from dvmsr.utils import download

    download.fetch(download.Remote(url, published.size, published.sha256), path)
    return path


def onnx_file(name: str, bundled: Path) -> Path:
    """The network of one of `FILES` in the place of that in a bundled ONNX file.

    Made anew every time, which takes milliseconds, and kept under a name with its own hash: it is
    neither damaged nor of another version.

    Raises:
        MissingComponentError, DvmsrError: as `checkpoint`, or if it cannot be kept.
    """
    from dvmsr.weights import pth, refill

    source = checkpoint(name)
    data = refill.refill(bundled.read_bytes(), pth.read(source), source.name, FILES[name].sha256)
    return cache.keep_onnx(name, data)
