"""All results of a run in one archive, and what they are called. Needs Python alone."""

from __future__ import annotations

import datetime
import os
import re
import tarfile
from pathlib import Path


def run_name(gpu: str) -> str:
    """`<gpu>-<date>`, as all results of one run are called, or what `DVMSR_RUN` says."""
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d")
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    return os.environ.get("DVMSR_RUN") or f"{slug}-{today}"


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
