"""Device memory, page-locked memory, a stream, graphs and a clock, over `dvmsr.kernels.cuda`."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import DvmsrError
from dvmsr.kernels.cuda import Library


class _Handle:
    """Something that the library made and frees again with this object."""

    def __init__(
        self,
        library: Library,
        maker: str,
        freer: str,
        *arguments: object,
        before: tuple[object, ...] = (),
    ) -> None:
        handle = ctypes.c_void_p()
        library.call(maker, *before, ctypes.byref(handle), *arguments)
        self._library = library
        self.pointer: int = handle.value or 0
        self._finalizer = weakref.finalize(self, library.call, freer, self.pointer)

    def free(self) -> None:
        """Free it now; twice is as once."""
        self._finalizer()


class DeviceMemory(_Handle):
    """Bytes on the GPU.

    Raises:
        DvmsrError: if there is not as much free memory.
    """

    def __init__(self, library: Library, size: int) -> None:
        super().__init__(library, "malloc", "free", max(size, 1))
        self.size = size


class HostMemory(_Handle):
    """Page-locked bytes on the host, between which and the GPU copies run by themselves.

    Raises:
        DvmsrError: if there is not as much free memory.
    """

    def __init__(self, library: Library, size: int) -> None:
        super().__init__(library, "malloc_host", "free_host", max(size, 1))
        self.size = size

    def array(self, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """The first bytes as an array, without a copy; not to be used once this is freed."""
        dtype = np.dtype(dtype)
        count = int(np.prod(shape))
        if count * dtype.itemsize > self.size:
            raise ValueError(f"{shape} of {dtype} are more than {self.size} bytes")
        data = (ctypes.c_ubyte * self.size).from_address(self.pointer)
        return np.ctypeslib.as_array(data)[: count * dtype.itemsize].view(dtype).reshape(shape)


class Event(_Handle):
    """A moment on a stream."""

    def __init__(self, library: Library) -> None:
        super().__init__(library, "event_create", "event_destroy")

    def record(self, stream: Stream) -> None:
        """The moment when the stream has done what it was given so far."""
        self._library.call("event_record", self.pointer, stream.pointer)

    def seconds_until(self, later: Event) -> float:
        """Both must have passed."""
        milliseconds = ctypes.c_float()
        self._library.call("event_elapsed", self.pointer, later.pointer, ctypes.byref(milliseconds))
        return milliseconds.value / 1000


class Stream(_Handle):
    """A queue of work on the GPU."""

    def __init__(self, library: Library) -> None:
        super().__init__(library, "stream_create", "stream_destroy")

    def copy(self, to: int, source: int, size: int) -> None:
        """Bytes between device memory and page-locked memory, in any direction."""
        self._library.call("copy", to, source, size, self.pointer)

    def fill(self, to: int, byte: int, size: int) -> None:
        """Set bytes of device memory."""
        self._library.call("fill", to, byte, size, self.pointer)

    def synchronize(self) -> None:
        """Wait until all work is done; raises what failed in it."""
        self._library.call("stream_synchronize", self.pointer)

    def record(self, work: Callable[[], None]) -> Graph:
        """A graph of what `work` puts on this stream; nothing of it runs yet.

        Raises:
            DvmsrError: if something in it cannot be recorded; what `work` raises goes through.
        """
        self._library.call("graph_begin", self.pointer)
        try:
            work()
        except BaseException:
            abandoned = ctypes.c_void_p()
            with suppress(DvmsrError):  # the first failure tells more
                self._library.call("graph_end", self.pointer, ctypes.byref(abandoned))
                self._library.call("graph_destroy", abandoned)
            raise
        return Graph(self._library, self)


class Graph(_Handle):
    """Work on a stream, recorded by `Stream.record`, that runs as a whole."""

    def __init__(self, library: Library, stream: Stream) -> None:
        super().__init__(library, "graph_end", "graph_destroy", before=(stream.pointer,))
        self._stream = stream

    def launch(self) -> None:
        """Put the work on its stream."""
        self._library.call("graph_launch", self.pointer, self._stream.pointer)
