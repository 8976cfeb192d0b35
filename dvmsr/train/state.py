"""What a run needs to go on exactly where it stopped, in one file that is replaced atomically."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.paths import exists, is_file
from dvmsr.runtime.atomic import write_atomically

FILE_NAME = "resume.pt"
FORMAT = 1


@dataclass
class TrainState:
    """The state after `step` steps. Batches depend on (seed, step) only: nothing else is random."""

    step: int
    seconds: float
    """Time spent so far, over all sessions of the run."""
    config: str
    """The network, `DVMSRConfig.to_json()`."""
    settings: dict[str, Any]
    """What must not change within a run (`Settings.fixed`, and the data's fingerprint)."""
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    best_psnr: float | None
    last_psnr: float | None

    def save(self, path: Path) -> None:
        """Write the file; a crash at any moment leaves the old or the new one, never a mixture.

        Raises:
            DvmsrError: if it cannot be written.
        """
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **vars(self)}, buffer)
        write_atomically(path, buffer.getbuffer(), overwrite=True)

    @classmethod
    def load(cls, path: Path) -> TrainState:
        """The inverse of `save`, on the CPU.

        Raises:
            DvmsrError: if the file is missing, broken or of another version.
        """
        if not is_file(path):
            raise DvmsrError(f"{path} does not exist: there is no run to resume there")
        try:
            values = torch.load(path, map_location="cpu", weights_only=True)
            version = values.pop("format")
            if version != FORMAT:
                raise DvmsrError(f"{path} has format {version}, this version reads {FORMAT}")
            return cls(**values)
        except DvmsrError:
            raise
        except Exception:  # torch.load raises almost anything for a broken file
            raise DvmsrError(
                f"{path} is damaged or no resume file; put a copy back, "
                "or start anew in another --out"
            ) from None


def open_run(out: Path, resume: bool) -> TrainState | None:
    """The state of the run in the folder `out`, or None for a new run, whose folder is then made.

    Raises:
        UsageError: if there is a run and it is not to be resumed.
        DvmsrError: if there is none to resume, or the folder cannot be made.
    """
    if resume:
        return TrainState.load(out / FILE_NAME)
    if exists(out / FILE_NAME):
        raise UsageError(f"{out} already holds a run; add --resume, or give another --out")
    if weights := next(out.glob("*.safetensors"), None):
        raise UsageError(f"{weights} would be overwritten; give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DvmsrError(f"{out} cannot be made a folder ({error.strerror})") from None
    return None
