"""A network in an ONNX file, run by ONNX Runtime on the CPU or a GPU."""

import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import DvmsrError, IncompatibleModelError, MissingComponentError
from dvmsr.kernels import cpu, cuda
from dvmsr.runtime.backends.base import Network, pixels_of
from dvmsr.runtime.backends.onnxrt.library import onnxruntime
from dvmsr.runtime.backends.onnxrt.onnx_file import OnnxHeader, check_bodies, read_header
from dvmsr.utils import signals
from dvmsr.utils import time_limit as time_limits
from dvmsr.utils.threads import NO_MORE, starting

DTYPES: dict[str, type] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
"""Of pictures."""
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_PROVIDER_OPTIONS = {_CUDA: {"use_tf32": "0"}}
"""FP32 means FP32: the CUDA provider else rounds what it multiplies to TF32's ten bits."""
_CUDA_REMEDY = (
    "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]', which brings "
    "the CUDA libraries that it needs"
)
_NO_MEMORY = "Failed to allocate", "ALLOC_FAILED", "bad_alloc", "out of memory"
"""In what ONNX Runtime says where memory is wanting."""
_LEFT_OUT = "optimization.disable_specified_optimizers"
FATAL_ONLY = 4
"""Log level: every failure already comes as an exception."""


class OnnxNetwork(Network):
    """(B, 3, H, W) FP32 RGB in [0, 1] -> (B, 3, s*H, s*W) FP32. May be called by several threads.

    Args:
        backend: `native` uses the operators of dvmsr's own library, `portable` their ONNX bodies,
            `cuda` runs on a GPU with the CUDA kernels.
        threads: how many ONNX Runtime uses; None leaves it to ONNX Runtime.

    Raises:
        DvmsrError: if the file cannot be read.
        IncompatibleModelError: if it is not an exported file or damaged.
        MissingComponentError: if the library or the GPU is missing or does not load.
    """

    def __init__(self, path: Path, backend: str, threads: int | None) -> None:
        self.path = path
        self.backend = backend
        self.header: OnnxHeader = read_header(path)
        self.config, self.precision = self.header.config, self.header.precision
        # Only the processor's library has a kernel for whole mixers, and old files have none.
        self.in_parts = backend != "native" or not self.header.has_mixers
        if backend != "portable" and not self.header.has_operators:
            raise IncompatibleModelError(
                f"{path} has its operators written out in standard ones, so the backend {backend} "
                "has nothing to run; use the backend portable, or export it without --inline"
            )
        if backend == "portable":
            check_bodies(path, self.header)
        self._options = options_for(backend, threads)
        self._session = self._open(os.fspath(path))
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        declared = inputs[0]
        if (
            ([i.name for i in inputs], [o.name for o in outputs]) != self._signature()
            or declared.type not in DTYPES
            or len(declared.shape) != 4
            or declared.shape[1] != 3
        ):
            raise IncompatibleModelError(
                f"{path} has other inputs and outputs than dvmsr's; export it again"
            )
        self._dtype = DTYPES[declared.type]
        batch, _, height, width = (n if isinstance(n, int) else None for n in declared.shape)
        self.usual_shape = self._fixed_shape = batch, height, width

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network. An interrupt (Ctrl-C) stops it between two nodes.

        Raises:
            IncompatibleModelError: if the file was exported for another size only.
            DvmsrError: if ONNX Runtime fails, for want of memory for instance.
        """
        batch, height, width = self._fixed_shape
        taken = (batch, 3, height, width)
        if any(n not in (None, size) for n, size in zip(taken, image.shape, strict=True)):
            raise IncompatibleModelError(
                f"{self.path} takes batches of {batch} images of {width}x{height} pixels only, not "
                f"{image.shape[3]}x{image.shape[2]}; export it without --static"
            )
        feeds = self._feeds(image)
        (output,) = run_session(self._session, ["output"], feeds, self.path, self.time_limit)
        return output.astype(np.float32, copy=False)

    def layers(self) -> list[str]:
        return list(self._layer_tools().computed_values(self.path, self.in_parts))

    def layer_values(
        self, image: NDArray[np.float32], names: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        tools = self._layer_tools()
        session = self._open(tools.with_outputs(self.path, names, self.in_parts))
        values = run_session(session, names, self._feeds(image), self.path, self.time_limit)
        found, planes = dict(zip(names, values, strict=True)), tools.planes(self.path)
        for name in planes.keys() & found.keys():
            if found[name].ndim == 4:  # no causal convolution that is written out
                found[name] = pixels_of(found[name], planes[name])
        return found

    def _signature(self) -> tuple[list[str], list[str]]:
        """Names of inputs and outputs."""
        return ["input"], ["output"]

    def _feeds(self, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The inputs for a whole image."""
        return {"input": image.astype(self._dtype, copy=False)}

    def _layer_tools(self) -> ModuleType:
        try:
            from dvmsr.runtime.backends.onnxrt import layers
        except ModuleNotFoundError as error:
            raise MissingComponentError(
                f"showing the layers of {self.path} needs {error.name}: pip install 'dvmsr[export]'"
            ) from None
        return layers

    def _open(self, model: str | bytes) -> onnxruntime.InferenceSession:
        """Load the file, or a model made of it."""
        return open_on(self.backend, model, self._options, self.path)


def options_for(
    backend: str, threads: int | None, half: bool = False
) -> onnxruntime.SessionOptions:
    """With the operators of that backend, `native`, `cuda` or `portable`.

    Args:
        half: whether the file has weights in half precision and may come from any exporter. On a
            processor Transposes then stay apart from products: some of them end the process, see
            `dvmsr.export.network.transposes`.

    Raises:
        MissingComponentError: if its library is missing or does not load.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    if threads:
        options.intra_op_num_threads = threads
        # The library reads the same number here, when it is registered.
        options.add_session_config_entry("session.intra_op_num_threads", str(threads))
    if half and backend != "cuda":
        options.add_session_config_entry(_LEFT_OUT, "MatmulTransposeFusion")
    if backend == "native":
        _register_native_operators(options)
    elif backend == "cuda":
        _register_cuda_operators(options)
    else:
        # In the default order, what functions give at the end of a graph is computed last, and all
        # that it is made of waits: more than twice the memory of strips, and 1.6 times of an image.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    return options


def open_on(
    backend: str, model: str | bytes, options: onnxruntime.SessionOptions, path: Path
) -> onnxruntime.InferenceSession:
    """`open_session` on the provider of a backend, which is never another than that.

    Raises: as `open_session`.
    """
    provider = _CUDA if backend == "cuda" else _CPU
    session = open_session(model, options, path, provider)
    if session.get_providers()[0] != provider:  # it goes on with the CPU, after a warning
        raise _without_cuda()
    return session


def open_session(
    model: str | bytes, options: onnxruntime.SessionOptions, path: Path, provider: str = _CPU
) -> onnxruntime.InferenceSession:
    """`InferenceSession` of a model that comes from `path`, on that provider alone.

    It raises for names of inputs and outputs that are no text, too.

    Raises:
        IncompatibleModelError: if ONNX Runtime cannot load it.
        MissingComponentError: if the provider is one that does not load.
        DvmsrError: if memory or threads are wanting.
    """
    try:
        # Otherwise it tries again without the provider, which it tells on standard output.
        session = onnxruntime.InferenceSession(
            model,
            options,
            providers=[provider],
            provider_options=[_PROVIDER_OPTIONS.get(provider, {})],
            enable_fallback=0,
        )
        for value in (*session.get_inputs(), *session.get_outputs()):
            _ = value.name, value.shape
        return session
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        if "pthread_create" in str(error):
            raise DvmsrError(f"{path} cannot be loaded: {NO_MORE}") from None
        if "bad_alloc" in str(error) or isinstance(error, MemoryError):
            raise DvmsrError(
                f"{path} needs more memory to be loaded than there is; end other programs"
            ) from None
        if provider == _CUDA and "NOT_IMPLEMENTED" in str(error):  # by the CPU, in its place
            raise _without_cuda() from None
        if provider == _CUDA and ("CUDA" in str(error) or isinstance(error, ValueError)):
            raise _without_cuda(f" ({first_line(error)})") from None
        raise IncompatibleModelError(
            f"{path} cannot be loaded by ONNX Runtime ({first_line(error)}); export it again"
        ) from None


def run_session(
    session: onnxruntime.InferenceSession,
    outputs: Sequence[str],
    feeds: dict[str, NDArray[Any]],
    path: Path,
    time_limit: float | None = None,
    remedy: str | None = None,
) -> list[NDArray[Any]]:
    """`InferenceSession.run` in a thread of its own, so that this one can take an interrupt.

    Args:
        time_limit: most seconds that it may take.
        remedy: what to advise where it fails on the caller's own inputs. None: they are as every
            sound file of dvmsr's takes them.

    Raises:
        DvmsrError: if ONNX Runtime fails on this model, which comes from `path`, for want of memory
            for instance, or takes longer, or no thread can be started.
        IncompatibleModelError: if a processor cannot compute what is in the file.
    """
    options = onnxruntime.RunOptions()
    outcome: list[list[NDArray[Any]] | BaseException] = []
    done = threading.Event()  # Thread.join, once interrupted, takes a thread for finished

    def run() -> None:
        try:
            outcome.append(session.run(list(outputs), feeds, options))
        except BaseException as error:
            outcome.append(error)
        finally:
            done.set()

    def is_done(seconds: float) -> bool:
        if done.wait(min(seconds, end - time.monotonic())):
            return True
        if time.monotonic() < end:
            return False
        raise time_limits.exceeded(path, time_limit or 0)

    thread = threading.Thread(target=run, daemon=True)
    end = math.inf if time_limit is None else time.monotonic() + time_limit
    try:
        with starting():
            thread.start()  # waits, too, so an interrupt may come here
        signals.wait(is_done)
    except BaseException as error:
        options.terminate = True
        if thread.ident is not None:
            done.wait(signals.GRACE if isinstance(error, DvmsrError) else None)
        raise
    result = outcome[0]
    if isinstance(result, Exception):
        raise _failure(result, path, remedy, session.get_providers()[0])
    if isinstance(result, BaseException):
        raise result
    return result


def _failure(error: Exception, path: Path, remedy: str | None, provider: str) -> DvmsrError:
    """What to say of a run that failed."""
    reason = first_line(error)
    if isinstance(error, MemoryError) or any(sign in reason for sign in _NO_MEMORY):
        advice = remedy or "use a smaller image"
        return DvmsrError(f"{path} needs more memory to be run than there is; {advice}")
    if remedy is None and provider == _CPU:
        return IncompatibleModelError(f"{path} cannot be computed ({reason}); export it again")
    return DvmsrError(f"ONNX Runtime failed on {path} ({reason}); {remedy or 'try it once more'}")


def _register_native_operators(options: onnxruntime.SessionOptions) -> None:
    library = cpu.library_path()
    if library is None:
        raise MissingComponentError(
            f"dvmsr was built without its native operators; {cpu.REMEDY}, "
            "or use the backend portable"
        )
    cpu.load()
    _register(options, library, f"{cpu.REMEDY}, or use the backend portable")


def _without_cuda(reason: str = "") -> MissingComponentError:
    return MissingComponentError(
        f"ONNX Runtime's CUDA provider does not load{reason}; {_CUDA_REMEDY}"
    )


def _register_cuda_operators(options: onnxruntime.SessionOptions) -> None:
    if _CUDA not in onnxruntime.get_available_providers():
        raise MissingComponentError(
            f"this ONNX Runtime has no CUDA provider; {_CUDA_REMEDY}, or use the backend native"
        )
    library = cuda.load()
    library.device()
    _register(options, library.path, "pip install -U onnxruntime-gpu")


def _register(options: onnxruntime.SessionOptions, library: Path, remedy: str) -> None:
    try:
        options.register_custom_ops_library(os.fspath(library))
    except Exception as error:
        raise MissingComponentError(
            f"{library} cannot be loaded by ONNX Runtime ({first_line(error)}); {remedy}"
        ) from None


def first_line(error: Exception) -> str:
    """Of what ONNX Runtime says, also where it quotes names that are no text."""
    if isinstance(error, UnicodeDecodeError):
        return error.object.decode(errors="backslashreplace").strip().splitlines()[0]
    return (str(error).strip() or type(error).__name__).splitlines()[0]
