"""Photographs and their bicubic reductions, decoded once and held in memory."""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from dvmsr.data.pairs import Pair, reduce, to_rgb
from dvmsr.errors import DvmsrError
from dvmsr.runtime.images.decode import decode_image
from dvmsr.train.data.sources import Source
from dvmsr.utils.threads import cores

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Photograph:
    """One to train on."""

    name: str
    """What messages call it."""
    digest: bytes
    """SHA-256 of its file."""
    size: tuple[int, int]
    """Height and width of its reduction."""
    pixels: Callable[[], Pair]
    """It and its reduction. Raises DvmsrError if they cannot be had any more."""


def read_photographs(
    sources: Sequence[Source],
    scale: int,
    report: Callable[[str], None],
    progress: Callable[[], None] = lambda: None,
) -> list[Photograph]:
    """Decode all of them into memory, three bytes per pixel.

    Args:
        sources: the photographs; a broken one is left out.
        scale: upscaling factor.
        report: takes one line of text per photograph left out.
        progress: called after each photograph.

    Raises:
        DvmsrError: if they do not fit into memory.
    """

    def load(source: Source) -> Photograph | DvmsrError:
        try:
            data = source.read()
            pair = load_pair(data, str(source), scale)
        except DvmsrError as error:
            return error
        height, width = pair.lr.shape[:2]
        digest = hashlib.sha256(data).digest()
        return Photograph(str(source), digest, (height, width), lambda: pair)

    photographs: list[Photograph] = []
    try:
        with closing(in_threads(load, sources)) as loaded:
            for each in loaded:
                progress()
                if isinstance(each, Photograph):
                    photographs.append(each)
                else:
                    report(left_out(each))
    except MemoryError:
        raise DvmsrError(
            f"the images do not fit into memory, only {len(photographs)} of {len(sources)} do; "
            "give fewer, or a folder for their pixels with --cache"
        ) from None
    return photographs


def left_out(reason: object) -> str:
    """What is reported of a photograph that is not trained on."""
    return f"left out: {reason}"


def load_pair(data: bytes, name: str, scale: int) -> Pair:
    """Decode a photograph and reduce it by `scale` as MATLAB does, rounded to uint8.

    Args:
        data: an image file.
        name: what messages call it.

    Raises:
        DvmsrError: if it is broken, has transparency or is smaller than one LR pixel.
    """
    return reduce(to_rgb(decode_image(io.BytesIO(data), name), name), scale, name)


def in_threads(function: Callable[[In], Out], items: Sequence[In]) -> Generator[Out, None, None]:
    """The results in the order of the items, computed in one thread per processor.

    Threads are at most a few items ahead, so results that are not kept need little memory. Close
    it to have no more computed.
    """
    threads = cores()
    waiting: deque[Future[Out]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
