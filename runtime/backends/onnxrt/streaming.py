"""A network in a streaming ONNX file, run by ONNX Runtime on the CPU."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.runtime.backends.onnxrt.network import OnnxNetwork, run_session
from dvmsr.runtime.backends.onnxrt.onnx_file import read_header
from dvmsr.strips import BOTTOM, TOP, arrange, least_rows, states


class StreamingNetwork(OnnxNetwork):
    """As `OnnxNetwork`, for what `dvmsr-export onnx --streaming` writes."""

    streams = True

    def stream(self, strips: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        feeds: dict[str, NDArray[Any]] = {}
        names = self._signature()[1]
        given = states(self.config)
        least = least_rows(self.config)
        for strip, top, bottom in arrange(strips, least, lambda parts: np.concatenate(parts, 2)):
            if top:
                feeds = self._feeds(strip)
            feeds["input"] = strip.astype(self._dtype, copy=False)
            feeds[TOP], feeds[BOTTOM] = _flag(top), _flag(bottom)
            rows, *after = run_session(self._session, names, feeds, self.path, self.time_limit)
            feeds.update(zip((state.name for state in given), after, strict=True))
            yield rows.astype(np.float32, copy=False)

    def _signature(self) -> tuple[list[str], list[str]]:
        given = states(self.config)
        return (
            ["input", TOP, BOTTOM, *(state.name for state in given)],
            ["output", *(state.next for state in given)],
        )

    def _feeds(self, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        batch, _, _, width = image.shape
        zeros: dict[str, NDArray[Any]] = {
            state.name: np.zeros(
                state.shape(batch, width), np.float32 if state.always_fp32 else self._dtype
            )
            for state in states(self.config)
        }
        return {**super()._feeds(image), TOP: _flag(True), BOTTOM: _flag(True), **zeros}


def open_onnx(path: Path, backend: str, threads: int | None) -> OnnxNetwork:
    """The network in an exported file of either kind; arguments and errors as of `OnnxNetwork`."""
    kind = StreamingNetwork if read_header(path).streaming else OnnxNetwork
    return kind(path, backend, threads)


def _flag(value: bool) -> NDArray[np.int64]:
    return np.array([value], np.int64)
