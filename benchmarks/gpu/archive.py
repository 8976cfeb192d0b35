"""All results of a run in one archive. Needs Python alone."""

from __future__ import annotations

import tarfile
from pathlib import Path


def renew(target: Path, folder: Path, run: str) -> None:
    """Put the run's files into `target`, a .tar.gz that is replaced as a whole.

    Raises:
        OSError: if it cannot be written; what was there before stays.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        with tarfile.open(partial, "w:gz", compresslevel=6) as archive:
            for path in sorted(folder.glob(f"{run}-*")):
                if path.is_file():
                    archive.add(path, path.name)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
