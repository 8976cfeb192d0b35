"""How TensorRT for RTX runs an engine: it compiles the kernels for a shape when it meets it."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from dvmsr.errors import DvmsrError
from dvmsr.utils import cache
from dvmsr.utils.atomic import write_atomically


class KernelsAtRunTime:
    """A runtime configuration for execution contexts of one engine, which share their kernels.

    These are there before a shape first runs: a CUDA graph would go on with those that stand in
    for them meanwhile. They are kept in the user's cache, for the next process.

    Args:
        path: the engine's file, for messages.
        plan_sha256: of the plan, which names the file in the cache.
    """

    def __init__(self, trt: ModuleType, engine: Any, path: Path, plan_sha256: str) -> None:
        self.config = engine.create_runtime_config()
        self.config.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED  # else nothing can be recorded
        )
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self.config.dynamic_shapes_kernel_specialization_strategy = eager
        self._cache = self.config.create_runtime_cache()
        self._engine_path = path
        self._path = cache.folder("tensorrt-rtx") / f"{plan_sha256}.kernels"
        with suppress(OSError):
            # Refused if it is damaged or of another GPU, driver or release, and then made anew.
            self._cache.deserialize(self._path.read_bytes())
        self.config.set_runtime_cache(self._cache)
        self._kept = self._serialised()

    def keep(self) -> None:
        """Write what has been compiled since the last time, if anything; failing that, warn."""
        kernels = self._serialised()
        if kernels == self._kept:
            return
        self._kept = kernels
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, kernels, overwrite=True)
        except (DvmsrError, OSError) as error:
            warnings.warn(
                f"the kernels of {self._engine_path} are compiled again by the next process, since "
                f"they cannot be kept ({error})",
                stacklevel=2,
            )

    def _serialised(self) -> bytes:
        return bytes(self._cache.serialize())
