"""`dvmsr lam`: which pixels of the input networks use for a window of their result."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dvmsr.data.pairs import Pixels, read_rgb
from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.eval.evaluate import short_names
from dvmsr.lam.explanation import Explanation
from dvmsr.lam.window import Box, parse_window, patch_around
from dvmsr.runtime.images.arrays import from_planes, to_planes
from dvmsr.runtime.images.encode import encode
from dvmsr.runtime.images.formats import check_format
from dvmsr.utils.atomic import check_target, write_atomically
from dvmsr.utils.console import notice, say, warnings_to
from dvmsr.utils.paths import exists
from dvmsr.utils.progress import progress_bar
from dvmsr.weights.registry import DEFAULT

if TYPE_CHECKING:
    from dvmsr.lam.torch_module import TorchModule

PROBE = 64
"""Largest side of the input with which a network's scale is found out."""


def explain(
    network: TorchModule,
    name: str,
    lr: Pixels,
    window: Box,
    sigma: float,
    steps: int,
    progress: Callable[[], None] = lambda: None,
) -> Explanation:
    """The local attribution map of one network; see `dvmsr.lam.attribution`.

    Args:
        name: in the explanation.
        lr: the patch that the network is given, (h, w, 3).
        window: in pixels of its result.
        progress: called after each step.

    Raises:
        DvmsrError: as the network's methods, or if no pixel has any influence.
    """
    import torch

    from dvmsr.lam import attribution

    def detail(sr: torch.Tensor) -> torch.Tensor:
        return attribution.edge_strength(sr, window)

    image = torch.from_numpy(to_planes(lr)[0])  # (3, h, w)
    attributions = attribution.integrate(
        lambda point: network.gradient(point, detail), image, sigma, steps, progress
    )
    found = attribution.attribution_map(attributions)
    if not found.any():
        raise DvmsrError(
            f"blurring the input changes nothing in the window for {name}; look at one with detail"
        )
    sr = network.enlarge(image)
    blurred = network.enlarge(attribution.baseline(image, sigma))
    return Explanation(
        name,
        attribution.diffusion_index(found),
        attribution.gini(found),
        float(detail(sr)),
        float(detail(blurred)),
        float(attributions.sum()),
        found,
        from_planes(sr[None].float().numpy(), np.uint8),
    )


def load_networks(models: Sequence[str]) -> list[TorchModule]:
    """The networks, by the names that `dvmsr.networks` knows.

    Raises:
        MissingComponentError: if PyTorch or safetensors is not installed.
        UsageError: if one is named twice.
        DvmsrError: as `dvmsr.networks.load`.
    """
    if len(set(models)) < len(models):
        raise UsageError("a model is named twice; leave one out")
    try:
        from dvmsr import networks
        from dvmsr.lam.torch_module import TorchModule
    except ModuleNotFoundError as error:
        raise MissingComponentError(
            f"looking into a network needs {error.name}; pip install 'dvmsr[train]'"
        ) from None
    return [TorchModule(model, networks.load(model)) for model in models]


def common_scale(networks: Sequence[TorchModule], lr: Pixels) -> int:
    """The scale of all of them, found out with a corner of an image (h, w, 3).

    Raises:
        UsageError: if they have different ones.
        DvmsrError: as `TorchModule.enlarge`.
    """
    import torch

    corner = torch.from_numpy(to_planes(lr[:PROBE, :PROBE])[0])
    width = corner.shape[-1]
    scales = {network.name: network.enlarge(corner).shape[-1] // width for network in networks}
    if len(set(scales.values())) > 1:
        found = ", ".join(f"{name} has {scale}" for name, scale in scales.items())
        raise UsageError(f"the scales differ ({found}); compare networks of one scale")
    return next(iter(scales.values()))


def run(
    image: Path,
    window: str,
    models: Sequence[str],
    patch: int,
    steps: int,
    sigma: float,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """The command: explain, draw, print."""
    place = parse_window("--window", window)
    if math.isnan(sigma):  # no comparison tells the option's limits
        raise UsageError("--sigma must be a number of pixels, not nan")
    target = image.with_name(f"{image.stem}_lam.png") if output is None else output
    check_format(target)
    with warnings_to():
        whole = read_rgb(image)
        if exists(target) and target.samefile(image):
            raise UsageError(f"{target} is the image itself; choose another name with -o")
        check_target(target, overwrite)
        # What other people's modules print is no result of this command.
        with redirect_stdout(sys.stderr):
            networks = load_networks(models or [DEFAULT])
            scale = common_scale(networks, whole[:patch, :patch])
            height, width = whole.shape[:2]
            cut = patch_around(place, scale, height, width, patch)
            lr = np.ascontiguousarray(whole[cut.y : cut.y + cut.height, cut.x : cut.x + cut.width])
            inner = place.inside(cut.times(scale))
            names = short_names([network.name for network in networks])
            with progress_bar("looking inside", steps * len(networks)) as advance:
                found = [
                    explain(network, name, lr, inner, sigma, steps, advance)
                    for network, name in zip(networks, names, strict=True)
                ]
        from dvmsr.lam.picture import draw

        picture = draw(lr, inner, found)
        write_atomically(target, encode(Image.fromarray(picture), target), overwrite)

    if as_json:
        report = {
            "image": str(image),
            "window": vars(place),
            "patch": vars(cut),
            "scale": scale,
            "steps": steps,
            "sigma": sigma,
            "picture": str(target),
            "models": [explanation.figures() for explanation in found],
        }
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        _print(found, place, cut)
    notice(f"picture in {target}")


def _print(found: Sequence[Explanation], window: Box, patch: Box) -> None:
    print(
        f"window of {window.width}x{window.height} pixels at {window.x},{window.y} of the result, "
        f"from {patch.width}x{patch.height} pixels at {patch.x},{patch.y} of the image"
    )
    width = max(len(explanation.name) for explanation in found)
    for explanation in found:
        say(f"{explanation.name:{width}}  diffusion index {explanation.diffusion_index:.2f}")
