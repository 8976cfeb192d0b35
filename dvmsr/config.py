"""The architecture of a DVMSR network as plain data; needs no torch.

Symbols follow the paper (arXiv 2405.03008): a network is a chain of RSSBs (residual state-space
blocks), each a chain of ViMMs (vision Mamba modules) closed by a 3x3 convolution.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from reprlib import repr
from typing import Any

from dvmsr.errors import UsageError

UPSAMPLERS = ("pixelshuffledirect", "pixelshuffle")
SCALES = (2, 3, 4)
LIMITS = {"channels": 4096, "state": 1024, "expand": 16, "conv_width": 64}
"""Largest sensible values; a file that asks for more is damaged."""
MAX_DEPTH = 64
"""Most RSSBs in a network and most ViMMs in an RSSB."""
UPSAMPLER_CHANNELS = 64
"""Feature channels of the `pixelshuffle` upsampler."""


@dataclass(frozen=True)
class DVMSRConfig:
    """Hyperparameters of a DVMSR network.

    Raises:
        UsageError: if a value is of the wrong type or outside its range.
    """

    channels: int = 60
    """C: channels of the token stream between ViMMs."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """ViMMs in each RSSB; its length is the number of RSSBs."""
    state: int = 16
    """N: size of the SSM state of each channel."""
    expand: int = 2
    """E: the SSM works on D = E * C channels."""
    conv_width: int = 4
    """K: taps of the causal depthwise convolution in front of the SSM."""
    scale: int = 4
    """Upscaling factor."""
    upsampler: str = "pixelshuffledirect"
    """`pixelshuffledirect`: one convolution and a pixel shuffle. `pixelshuffle`: 64 feature
    channels, a convolution and shuffle per factor of two (or three), and a last convolution."""
    vimm_residual: bool = False
    """Add each ViMM's input to its output (Eq. 4 of the paper; the released code does not)."""
    bidirectional: bool = False
    """Scan in both directions: a second conv1d, x_proj, dt_proj, A and D; outputs summed."""

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= limit:
                raise UsageError(f"{name} must be an integer from 1 to {limit}, not {repr(value)}")
        if (
            not isinstance(self.depths, (tuple, list))
            or not 1 <= len(self.depths) <= MAX_DEPTH
            or not all(type(depth) is int and 1 <= depth <= MAX_DEPTH for depth in self.depths)
        ):
            raise UsageError(
                f"depths must be 1 to {MAX_DEPTH} integers from 1 to {MAX_DEPTH}, "
                f"one per RSSB, not {repr(self.depths)}"
            )
        object.__setattr__(self, "depths", tuple(self.depths))
        if type(self.scale) is not int or self.scale not in SCALES:
            raise UsageError(f"scale must be one of {SCALES}, not {repr(self.scale)}")
        if self.upsampler not in UPSAMPLERS:
            raise UsageError(f"upsampler must be one of {UPSAMPLERS}, not {repr(self.upsampler)}")
        for name in ("vimm_residual", "bidirectional"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} must be true or false, not {repr(getattr(self, name))}")

    @property
    def inner_channels(self) -> int:
        """D: channels inside the SSM."""
        return self.expand * self.channels

    @property
    def dt_rank(self) -> int:
        """Rank of the projection that makes delta: ceil(C / 16)."""
        return -(-self.channels // 16)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return {**asdict(self), "depths": list(self.depths)}

    def to_json(self) -> str:
        """One line of JSON with sorted keys; equal configurations give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DVMSRConfig:
        """The inverse of `to_dict`.

        Raises:
            UsageError: for an unknown field or a bad value.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise UsageError(f"unknown configuration field {repr(unknown[0])}")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> DVMSRConfig:
        """The inverse of `to_json`.

        Raises:
            UsageError: if the text is not a JSON object of known fields.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError(f"the configuration is not valid JSON ({error})") from None
        except (ValueError, RecursionError):  # thousands of digits or brackets
            raise UsageError("the configuration has numbers or lists beyond measure") from None
        if not isinstance(values, dict):
            raise UsageError("the configuration is not a JSON object")
        return cls.from_dict(values)


def describe_difference(then: DVMSRConfig, now: DVMSRConfig) -> str:
    """What two networks differ in: `channels 60, not 48; scale 4, not 2`."""
    names = [field.name for field in fields(DVMSRConfig)]
    pairs = ((name, getattr(then, name), getattr(now, name)) for name in names)
    return "; ".join(f"{name} {one}, not {other}" for name, one, other in pairs if one != other)


PRESETS: dict[str, DVMSRConfig] = {
    "student": DVMSRConfig(),
    "teacher": DVMSRConfig(channels=192, depths=(2,) * 8, upsampler="pixelshuffle"),
    "ntire-student": DVMSRConfig(depths=(2, 2)),
    "ntire-teacher": DVMSRConfig(channels=180, depths=(2,) * 6, upsampler="pixelshuffle"),
}
"""The paper's student and teacher, and those of the NTIRE 2024 submission.

The weights that were released for the submission are not of `ntire-student`, which has 2 RSSBs:
they have 4 and fit `student`."""


def preset(name: str) -> DVMSRConfig:
    """The named configuration.

    Raises:
        UsageError: if there is none of that name.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise UsageError(f"no preset {name!r}; there are {', '.join(PRESETS)}") from None
