"""The files of a run. Only the first process of a group has them open."""

import io
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image

from dvmsr import checkpoint
from dvmsr.data.pairs import Pixels
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.model import DVMSR
from dvmsr.train.config.settings import Settings
from dvmsr.train.run.board import Board
from dvmsr.train.run.report import RunLog
from dvmsr.train.run.state import FILE_NAME, LOG_NAME, PICTURES, TrainState, open_run
from dvmsr.utils.atomic import write_atomically
from dvmsr.utils.locks import hold
from dvmsr.utils.paths import exists

LAST = "last.safetensors"


class RunFolder:
    """`last.safetensors`, `best.safetensors` and the last few `step-N.safetensors`, `log.jsonl`,
    `resume.pt`, and pictures and curves if the settings ask for them.

    Args:
        path: a folder, made by `open` if need be.
        settings: `keep`, `pictures` and `tensorboard` count.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self.log: RunLog | None = None
        self.board: Board | None = None

    def open(self, last_step: int, beginning: TrainState | None, until: ExitStack) -> None:
        """Keep other processes out, and begin to write.

        Args:
            last_step: what the log has of later steps is dropped.
            beginning: the first state of a new run; None for one that is resumed.
            until: closes the files.

        Raises:
            UsageError: if another process trains here, or a run began here meanwhile.
            DvmsrError: if it cannot be written to; as do all other methods.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DvmsrError(
                f"{self.path} cannot be made a folder ({error.strerror}); choose another --output"
            ) from None
        descriptor = os.open(self.path, os.O_RDONLY)
        until.callback(os.close, descriptor)
        busy = f"another process trains in {self.path}; let it end, or give another --output"
        hold(descriptor, UsageError(busy))
        if beginning is not None:
            open_run(self.path, resume=False)
            self.save_state(beginning)  # before the log, which alone would block a new run
        self.log = RunLog(self.path / LOG_NAME, last_step)
        if self.settings.tensorboard:
            self.board = until.enter_context(Board(self.path, last_step))

    def append(self, row: dict[str, Any]) -> None:
        """A row of the log, and its curves."""
        if self.log is not None:
            self.log.append(row)
        if self.board is not None:
            self.board.add_row(row)

    def last_weights(self) -> Path | None:
        """The newest checkpoint, if there is one."""
        path = self.path / LAST
        return path if exists(path) else None

    def save_weights(
        self, model: DVMSR, step: int, metadata: Mapping[str, str], best: bool
    ) -> None:
        """Checkpoints after `step` steps; of earlier ones, the last few and the best remain."""
        keep = self.settings.keep
        kept = [f"step-{step:08}.safetensors"] if keep else []
        for name in [*kept, LAST, *["best.safetensors"] * best]:
            checkpoint.save(model, self.path / name, metadata)
        numbered = sorted(self.path.glob(f"step-{'[0-9]' * 8}.safetensors"))
        for old in numbered[: -keep or None]:
            old.unlink()

    def save_state(self, state: TrainState) -> None:
        """What a later session goes on from."""
        state.save(self.path / FILE_NAME)

    def save_picture(self, number: int, image: Pixels, step: int) -> None:
        """A validation image (H, W, 3) as the network upscales it, if it is among the first."""
        if number >= self.settings.pictures:
            return
        data = io.BytesIO()
        Image.fromarray(image).save(data, "PNG")
        folder = self.path / PICTURES
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{number:03}.png", data.getbuffer(), overwrite=True)
        if self.board is not None:
            self.board.add_picture(number, image, step)
