"""Losses, scores and pictures in TensorBoard's format, for those who have it installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from dvmsr.data.pairs import Pixels
from dvmsr.errors import MissingComponentError

FOLDER = "tensorboard"


def check_board() -> None:
    """Whether TensorBoard's writer is installed.

    Raises:
        MissingComponentError: if not.
    """
    try:
        importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        raise MissingComponentError(
            "--tensorboard needs TensorBoard; install it with pip install 'dvmsr[tensorboard]'"
        ) from None


class Board:
    """Event files below the run's folder; a context manager.

    Args:
        out: the run's folder.
        last_step: what an interrupted session has written of later steps is hidden.
    """

    def __init__(self, out: Path, last_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(out / FOLDER), purge_step=last_step + 1)

    def add_row(self, row: dict[str, Any]) -> None:
        """A row of the log (`RunLog`): each number becomes a curve over the steps."""
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)):
                self.writer.add_scalar(name, value, row["step"])

    def add_picture(self, number: int, image: Pixels, step: int) -> None:
        """What the network makes of an image that was held out, (H, W, 3)."""
        self.writer.add_image(f"validation/{number}", image, step, dataformats="HWC")

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()
