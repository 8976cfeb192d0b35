"""A network in a checkpoint, run by PyTorch; imports torch only when one is made."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import DvmsrError, MissingComponentError
from dvmsr.runtime.backends.base import Network


class TorchNetwork(Network):
    """(B, 3, H, W) FP32 RGB in [0, 1] -> (B, 3, s*H, s*W) FP32. May be called by several threads.

    Args:
        threads: how many PyTorch uses, in the whole process; None leaves it as it is.

    Raises:
        MissingComponentError: if PyTorch or safetensors is not installed.
        DvmsrError: if the file cannot be read.
        IncompatibleModelError: if it is not a checkpoint of this network.
    """

    precision = "fp32"

    def __init__(self, path: Path, threads: int | None) -> None:
        try:
            import torch

            from dvmsr import checkpoint
        except ModuleNotFoundError as error:
            raise MissingComponentError(
                f"{path} is a checkpoint, which needs {error.name}: pip install 'dvmsr[train]', "
                "or export it to ONNX elsewhere with `dvmsr-export onnx`"
            ) from None
        self.path = path
        self._torch = torch
        self._model = checkpoint.load(path)
        self.config = self._model.config
        self.streams = not self.config.bidirectional
        if threads:
            torch.set_num_threads(threads)

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._explained():
            result: NDArray[np.float32] = self._model(self._torch.from_numpy(image)).numpy()
        return result

    def stream(self, strips: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        from dvmsr.streaming import stream

        pieces = stream(self._model, map(self._torch.from_numpy, strips))
        while True:
            with self._explained():  # not around the yield: it would hold for the caller, too
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece.numpy()

    def layers(self) -> list[str]:
        from dvmsr.runtime.backends.pytorch.layers import places

        return list(places(self._model))

    def layer_values(
        self, image: NDArray[np.float32], names: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        from dvmsr.runtime.backends.pytorch.layers import values

        with self._explained():
            return values(self._model, self._torch.from_numpy(image), names)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Inference, whose failures become one sentence."""
        try:
            with self._torch.inference_mode():
                yield
        except RuntimeError as error:  # PyTorch's want of memory is one of these
            reason = str(error).strip().splitlines()[0]
            raise DvmsrError(
                f"PyTorch failed on {self.path} ({reason}); try a smaller image"
            ) from None
