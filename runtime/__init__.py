"""Images in, larger images out, on any backend; arrays in and out for networks of others. Never
imports torch by itself.

from dvmsr.runtime import Upscaler
upscaler = Upscaler.from_file()          # the bundled model
large = upscaler(Image.open("small.png"))

from dvmsr.runtime import open_model
outputs = open_model("vim.onnx")(x=array)    # by name
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvmsr.runtime.tensors import open_model
    from dvmsr.runtime.upscaler import Upscaler

__all__ = ["Upscaler", "open_model"]


def __getattr__(name: str) -> Any:
    if name == "Upscaler":
        from dvmsr.runtime.upscaler import Upscaler

        return Upscaler
    if name == "open_model":
        from dvmsr.runtime.tensors import open_model

        return open_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
