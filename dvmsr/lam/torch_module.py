"""A network in PyTorch that is asked for results and gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dvmsr.errors import DvmsrError, IncompatibleModelError, summary
from dvmsr.utils import memory
from dvmsr.utils.sizes import in_words

_HEADROOM = 1.5
"""What a gradient needs, as a multiple of what is kept for it: 1.3 to 1.5 was measured."""
_PROMISE = "it must map (b, 3, h, w) to (b, 3, s*h, s*w)"


@dataclass(frozen=True)
class TorchModule:
    """A network from (b, 3, h, w) RGB in [0, 1] to (b, 3, s*h, s*w), and its name for messages.

    Both methods take and give FP32 or FP64 on the CPU. They raise:
        DvmsrError: if the network fails, or gives values that are not finite.
        IncompatibleModelError: if its result has a wrong size, or no gradient.
    """

    name: str
    module: nn.Module

    def enlarge(self, image: Tensor) -> Tensor:
        """(3, h, w) in [0, 1] -> (3, s*h, s*w), neither clipped nor rounded."""
        with torch.no_grad():
            sr = self._run(image)[0].to(image)
        return self._finite(sr, image)

    def gradient(self, image: Tensor, detector: Callable[[Tensor], Tensor]) -> Tensor:
        """Of a number that `detector` makes of the result (1, 3, s*h, s*w), (3, h, w).

        Also raises:
            DvmsrError: before what must be kept for it takes more than the free memory.
        """
        image = image.clone().requires_grad_()
        with torch.enable_grad(), _limited(self.name, image):
            value = detector(self._run(image))
        if not value.requires_grad:
            raise IncompatibleModelError(
                f"{self.name} gives no gradient; let PyTorch compute all of it, without no_grad, "
                "detach or NumPy"
            )
        try:
            (gradient,) = torch.autograd.grad(value, image)
        except RuntimeError as error:
            raise self._failed(image, error) from None
        return self._finite(gradient, image)

    def _run(self, image: Tensor) -> Tensor:
        weights = (weight for weight in self.module.parameters() if weight.is_floating_point())
        place = next(weights, image)
        try:
            sr = self.module(image[None].to(place))
        except (DvmsrError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise self._failed(image, error) from None
        self._check(sr, image)
        return sr

    def _check(self, sr: Any, image: Tensor) -> None:
        given = "x".join(map(str, (1, *image.shape)))
        if not isinstance(sr, Tensor):
            raise IncompatibleModelError(
                f"{self.name} returns a {type(sr).__name__} for an input of {given}, not a tensor; "
                f"{_PROMISE}"
            )
        if sr.is_meta:
            raise IncompatibleModelError(
                f"{self.name} has no weights, only their shapes (PyTorch's device meta); load them "
                "in the factory"
            )
        (_, height, width), shape = image.shape, tuple(sr.shape)
        scale = shape[-1] // width if shape else 0
        if scale < 1 or shape != (1, 3, scale * height, scale * width):
            found = "x".join(map(str, shape)) or "a scalar"
            raise IncompatibleModelError(
                f"{self.name} returns {found} for an input of {given}; {_PROMISE}"
            )

    def _finite(self, values: Tensor, image: Tensor) -> Tensor:
        if not values.isfinite().all():
            raise DvmsrError(
                f"{self.name} gives values or gradients that are no finite numbers for an input "
                f"of {image.shape[-1]}x{image.shape[-2]} pixels; check its weights"
            )
        return values.detach().cpu()

    def _failed(self, image: Tensor, error: BaseException) -> DvmsrError:
        return DvmsrError(
            f"{self.name} failed on an input of {image.shape[-1]}x{image.shape[-2]} pixels "
            f"({summary(error)}); try another --patch"
        )


def _limited(name: str, image: Tensor) -> saved_tensors_hooks:
    """Stops a network before what is kept for its gradient takes more than the free memory."""
    there = memory.available()
    kept: set[int] = set()
    needed = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal needed
        storage = tensor.untyped_storage()
        if tensor.device.type == "cpu" and storage.data_ptr() not in kept:
            kept.add(storage.data_ptr())
            needed += storage.nbytes()
            if there is not None and _HEADROOM * needed > there:
                raise DvmsrError(
                    f"{name} needs more memory for the gradient of {image.shape[-1]}x"
                    f"{image.shape[-2]} pixels than the {in_words(there)} that are free; take a "
                    "smaller --patch"
                )
        return tensor

    return saved_tensors_hooks(keep, lambda tensor: tensor)
