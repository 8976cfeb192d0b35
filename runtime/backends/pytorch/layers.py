"""The values inside `dvmsr.model.DVMSR` under the names that they have in an exported file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from dvmsr.model import DVMSR
from dvmsr.runtime.backends.base import pixels_of


@dataclass(frozen=True)
class Place:
    """Where a value can be had."""

    module: nn.Module
    of_output: bool = True
    """Whether the module's output is meant or its input."""
    pixels: bool = False
    """Whether an image (B, C, H, W) there is (B, H, W, C) in the file."""
    enlarged: int = 1
    """By what a pixel shuffle after it enlarges; then channels are in its order there."""

    def value(self, inputs: tuple[Tensor, ...], output: Tensor) -> NDArray[Any]:
        value = output if self.of_output else inputs[0]
        array: NDArray[Any] = value.numpy()
        return pixels_of(array, self.enlarged) if self.pixels else array.copy()


def places(network: DVMSR) -> dict[str, Place]:
    """Where each value can be had, in the order of computation: those that cross the border of a
    module, whose names and layouts are `dvmsr.export.onnx.graph`'s."""
    return dict(_places(network))


def _places(network: Any) -> Iterator[tuple[str, Place]]:
    config = network.config
    yield "conv_first", Place(network.conv_first, pixels=True)
    yield "patch_embed/norm", Place(network.patch_embed.norm)
    for i, rssb in enumerate(network.layers):
        for j, vimm in enumerate(rssb.residual_group.blocks):
            name = f"rssb{i}/vimm{j}"
            yield f"{name}/norm", Place(vimm.norm)
            if config.bidirectional:
                yield f"{name}/both", Place(vimm.mixer)
            else:
                yield f"{name}/scan", Place(vimm.mixer.out_proj, of_output=False)
                yield name, Place(vimm.mixer)
            if config.vimm_residual:
                yield f"{name}/residual", Place(vimm)
        yield f"rssb{i}/conv", Place(rssb.conv, pixels=True)
        yield f"rssb{i}/skip", Place(rssb)
    yield "norm_f", Place(network.norm_f)
    yield "conv_after_body", Place(network.conv_after_body, pixels=True)
    yield "skip", Place(network.conv_before_upsample, of_output=False, pixels=True)
    if config.upsampler == "pixelshuffle":
        yield "conv_before_upsample/conv", Place(network.conv_before_upsample[0], pixels=True)
        yield "conv_before_upsample/act", Place(network.conv_before_upsample[1], pixels=True)
        for k in range(len(network.upsample) // 2):
            convolution, shuffle = network.upsample[2 * k], network.upsample[2 * k + 1]
            enlarged = shuffle.upscale_factor
            yield f"upsample/conv{k}", Place(convolution, pixels=True, enlarged=enlarged)
    yield "output", Place(network)


def values(network: DVMSR, image: Tensor, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """What the named places hold for an image (B, 3, H, W); not while another thread runs it."""
    found: dict[str, NDArray[Any]] = {}
    there = places(network)

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = there[name].value(inputs, output)

        return hook

    handles = [there[name].module.register_forward_hook(keep(name)) for name in names]
    try:
        network(image)
    finally:
        for handle in handles:
            handle.remove()
    return found
