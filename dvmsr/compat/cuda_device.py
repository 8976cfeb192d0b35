"""`with torch.cuda.device(tensor.device)` around PyTorch code, for tensors of a CPU, too."""

from typing import Any

import torch

_original = torch.cuda.device


class _Device(_original):
    """As `torch.cuda.device`, but nothing happens for a CPU's device, or for the current one where
    there is no GPU: both of which it refuses."""

    def __init__(self, device: Any) -> None:
        if isinstance(device, str):
            device = torch.device(device)
        self.inert = (isinstance(device, torch.device) and device.type == "cpu") or (
            device is None and not torch.cuda.is_available()
        )
        if not self.inert:
            super().__init__(device)

    def __enter__(self) -> None:
        if not self.inert:
            super().__enter__()

    def __exit__(self, *error: Any) -> Any:
        return False if self.inert else super().__exit__(*error)


def install() -> None:
    torch.cuda.device = _Device  # type: ignore[misc]


def uninstall() -> None:
    torch.cuda.device = _original  # type: ignore[misc]
