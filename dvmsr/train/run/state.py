"""What a run needs to go on exactly where it stopped, in one file that is replaced atomically."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.utils.atomic import check_folder, write_atomically
from dvmsr.utils.paths import exists, is_file

FILE_NAME = "resume.pt"
LOG_NAME = "log.jsonl"
PICTURES = "pictures"
"""Folder for upscaled validation images."""
FORMAT = 5

Fingerprint = tuple[int, str]
"""How many images, and a SHA-256 of what is in them."""


@dataclass
class TrainState:
    """The state after `step` steps. Batches depend on (seed, step) only: nothing else is random."""

    step: int
    seconds: float
    """Time spent so far, over all sessions of the run."""
    finished: bool
    """Whether the run's length was reached and its last weights are saved."""
    due: bool
    """Whether a validation of this step was to come when a signal ended the run."""
    config: str
    """The network, `DVMSRConfig.to_json()`."""
    settings: dict[str, Any]
    """The fields of `Settings`, and those of `Distillation` where there is a teacher."""
    origin: dict[str, Any]
    """What else the caller of `Trainer` wants to find again."""
    data: Fingerprint
    validation: Fingerprint
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    objective: dict[str, Tensor]
    """What is trained besides the network; see `dvmsr.train.objective`."""
    optimiser: dict[str, Any]
    """`Optimiser.state`."""
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
            UsageError: if there is no such file.
            IncompatibleModelError: if it is broken or of another version.
        """
        if not is_file(path):
            raise UsageError(
                f"{path} does not exist, so there is no run to resume; leave --resume out"
            )
        try:
            values = torch.load(path, map_location="cpu", weights_only=True)
            version = values.pop("format")
            if version != FORMAT:
                raise IncompatibleModelError(
                    f"{path} has format {version}, this version of dvmsr reads {FORMAT}; "
                    "finish the run with the version that began it"
                )
            return cls(**values)
        except IncompatibleModelError:
            raise
        except Exception:  # torch.load raises almost anything for a broken file
            raise IncompatibleModelError(
                f"{path} is damaged or no resume file; put a copy back, "
                "or start anew in another --output"
            ) from None


def open_run(out: Path, resume: bool) -> TrainState | None:
    """The state of the run in the folder `out`, or None for a new run. Writes nothing.

    Raises:
        UsageError: if there is a run, or a file in its way, and it is not to be resumed, or if
            there is none to resume.
        DvmsrError: if the folder cannot be written to.
    """
    state = TrainState.load(out / FILE_NAME) if resume else None
    if state is None:
        if exists(out / FILE_NAME):
            raise UsageError(f"{out} already holds a run; add --resume, or give another --output")
        for name in ("*.safetensors", LOG_NAME, f"{PICTURES}/*.png"):
            if found := next(out.glob(name), None):
                raise UsageError(f"{found} would be overwritten; give another --output")
    check_folder(out)
    return state


def check_images(out: Path, option: str, then: Fingerprint, now: Fingerprint) -> None:
    """Whether the images of an option are still those that the run in `out` began with.

    Raises:
        UsageError: if not.
    """
    if then == now:
        return
    if not then[0]:
        raise UsageError(
            f"the run in {out} has no {option}; leave it out to go on, "
            "or start anew in another --output"
        )
    raise UsageError(
        f"the images of {option} ({now[0]}) are not those that the run in {out} "
        f"began with ({then[0]}); give those to go on, or start anew in another --output"
    )
