"""The values inside `dvmsr.model.DVMSR` under the names that they have in an exported file."""

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from dvmsr.model import DVMSR

Place = tuple[nn.Module, bool]
"""A module, and whether its output is meant or its input."""


def places(network: DVMSR) -> dict[str, Place]:
    """Where each value can be had, in the order of computation: those that cross the border of a
    module, whose names and layouts are `dvmsr.export.onnx.graph`'s."""
    return dict(_places(network))


def _places(network: Any) -> Iterator[tuple[str, Place]]:
    config = network.config
    yield "conv_first", (network.conv_first, True)
    yield "patch_embed/norm", (network.patch_embed.norm, True)
    for i, rssb in enumerate(network.layers):
        for j, vimm in enumerate(rssb.residual_group.blocks):
            name = f"rssb{i}/vimm{j}"
            yield f"{name}/norm", (vimm.norm, True)
            if config.bidirectional:
                yield f"{name}/both", (vimm.mixer, True)
            else:
                yield f"{name}/scan", (vimm.mixer.out_proj, False)
                yield name, (vimm.mixer, True)
            if config.vimm_residual:
                yield f"{name}/residual", (vimm, True)
        yield f"rssb{i}/conv", (rssb.conv, True)
        yield f"rssb{i}/skip", (rssb, True)
    yield "norm_f", (network.norm_f, True)
    yield "conv_after_body", (network.conv_after_body, True)
    yield "skip", (network.conv_before_upsample, False)
    if config.upsampler == "pixelshuffle":
        yield "conv_before_upsample/conv", (network.conv_before_upsample[0], True)
        yield "conv_before_upsample/act", (network.conv_before_upsample[1], True)
        for k in range(len(network.upsample) // 2):
            yield f"upsample/conv{k}", (network.upsample[2 * k], True)
            yield f"upsample/shuffle{k}", (network.upsample[2 * k + 1], True)
    yield "output", (network, True)


def values(network: DVMSR, image: Tensor, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """What the named places hold for an image (B, 3, H, W); not while another thread runs it."""
    found: dict[str, NDArray[Any]] = {}
    there = places(network)

    def keep(name: str, of_output: bool) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = (output if of_output else inputs[0]).numpy().copy()

        return hook

    handles = [there[name][0].register_forward_hook(keep(name, there[name][1])) for name in names]
    try:
        network(image)
    finally:
        for handle in handles:
            handle.remove()
    return found
