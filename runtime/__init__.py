"""Images in, larger images out, on any backend. Never imports torch by itself.

from dvmsr.runtime import Upscaler
upscaler = Upscaler.from_file()          # the bundled model
large = upscaler(Image.open("small.png"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvmsr.runtime.upscaler import Upscaler

__all__ = ["Upscaler"]


def __getattr__(name: str) -> Any:
    if name == "Upscaler":
        from dvmsr.runtime.upscaler import Upscaler

        return Upscaler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
