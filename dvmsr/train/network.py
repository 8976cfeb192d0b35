"""The networks of a run: the one to train, and its teacher."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig, describe_difference
from dvmsr.config import preset as named_preset
from dvmsr.errors import UsageError
from dvmsr.model import DVMSR, reset_delta_projections
from dvmsr.train.run.state import TrainState


def build_network(
    given: Mapping[str, Any], out: Path, state: TrainState | None, dt_init: str
) -> DVMSR:
    """The network of the run to resume, of --init, or a fresh one.

    Args:
        given: `preset`, `scale`, `network` (fields of `DVMSRConfig`) and `init`, where given;
            with a `scale` that is not that of `init` as `rescaled` has it.
        dt_init: see `dvmsr.train.config.settings.Settings`.

    Raises:
        UsageError: if other options ask for another one.
    """
    init: Path | None = given.get("init")
    if state is not None:
        what = f"the run in {out}"
        model = DVMSR(DVMSRConfig.from_json(state.config))
        begun_with = state.origin["init_sha256"]
        if init is not None and checkpoint.sha256(init) != begun_with:
            start = state.origin["init"] if begun_with else "new weights"
            raise UsageError(
                f"{what} began with {start}, not with what {init} holds now; leave --init out"
            )
    elif init is not None:
        what, model = str(init), checkpoint.load(init)
        if given.get("scale") not in (None, model.config.scale):
            model = rescaled(model, given["scale"])
    else:
        model = DVMSR(wanted_config(given, named_preset("student")))
        if dt_init == "official":
            reset_delta_projections(model)
        return model
    check_network(given, what, model.config)
    return model


def rescaled(model: DVMSR, scale: int) -> DVMSR:
    """The same body with an upsampler for another scale.

    That of `pixelshuffledirect` makes at first what the old one does, averaged over the area of
    each new pixel; of `pixelshuffle`, the convolutions before the shuffles are new.

    Raises:
        UsageError: if there is no such scale.
    """
    other = DVMSR(replace(model.config, scale=scale))
    fitting = {k: v for k, v in model.state_dict().items() if not k.startswith("upsample.")}
    with torch.no_grad():
        other.load_state_dict({**other.state_dict(), **fitting})
        if model.config.upsampler == "pixelshuffledirect":
            areas = _shares(model.config.scale, scale).to(model.mean.dtype)
            for new, old in zip(
                other.upsample.parameters(), model.upsample.parameters(), strict=True
            ):
                phases = old.unflatten(0, (3, model.config.scale, model.config.scale))
                mean = torch.einsum("pi,qj,cij...->cpq...", areas, areas, phases)
                new.copy_(mean.flatten(0, 2))
    return other


def _shares(old: int, new: int) -> Tensor:
    """(new, old): how much of each of `new` equal parts of a line lies in each of `old` ones."""
    first, second = torch.arange(new)[:, None], torch.arange(old)
    overlap = torch.minimum((first + 1) * old, (second + 1) * new) - torch.maximum(
        first * old, second * new
    )
    return overlap.clamp(min=0) / old


def wanted_config(given: Mapping[str, Any], otherwise: DVMSRConfig) -> DVMSRConfig:
    """The network that options ask for; where they do not say, `otherwise`.

    Raises:
        UsageError: if there is no such network.
    """
    base = named_preset(given["preset"]) if given.get("preset") else otherwise
    scale = otherwise.scale if given.get("scale") is None else given["scale"]
    return DVMSRConfig.from_dict({**base.to_dict(), "scale": scale, **given.get("network", {})})


def check_network(given: Mapping[str, Any], what: str, config: DVMSRConfig) -> None:
    """Whether options ask for the network that there is, that of `what`.

    Raises:
        UsageError: if not.
    """
    if given.get("scale") not in (None, config.scale):
        raise UsageError(
            f"{what} upscales by {config.scale}, not {given['scale']}; leave --scale out"
        )
    wanted = wanted_config(given, config)
    if wanted != config:
        name = given.get("preset")
        asked = f"{name} network" if name else "network as asked for"
        raise UsageError(
            f"{what} is not a {asked} ({describe_difference(config, wanted)}); "
            f"leave {'--preset' if name else 'it'} out"
        )


def load_teacher(
    given: Mapping[str, Any], origin: dict[str, Any], out: Path, state: TrainState | None
) -> DVMSR | None:
    """The teacher of the run, if it has one; what it is goes into `origin`.

    Raises:
        UsageError: if it is not the one that the run to resume began with.
        DvmsrError: if it cannot be read.
    """
    if state is not None and "teacher" in given and origin["teacher_sha256"] is None:
        raise UsageError(f"the run in {out} has no teacher; leave --teacher out")
    path = origin["teacher"]
    if path is None:
        return None
    digest = checkpoint.sha256(path)
    if state is not None and digest != origin["teacher_sha256"]:
        raise UsageError(
            f"{path} is not the teacher that the run in {out} began with; name that with --teacher"
        )
    origin["teacher_sha256"] = digest
    return checkpoint.load(path)
