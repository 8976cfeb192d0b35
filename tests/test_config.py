from __future__ import annotations

import dataclasses
import json

import pytest

from dvmsr.config import PRESETS, DVMSRConfig, preset
from dvmsr.errors import UsageError


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name: str) -> None:
    config = preset(name)
    assert DVMSRConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json()) == config.to_dict()


def test_derived_sizes() -> None:
    assert (DVMSRConfig().inner_channels, DVMSRConfig().dt_rank) == (120, 4)
    assert DVMSRConfig(channels=65, expand=3).dt_rank == 5
    assert DVMSRConfig(depths=[1, 2]).depths == (1, 2)  # type: ignore[arg-type]


def test_is_frozen_and_hashable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DVMSRConfig().channels = 3  # type: ignore[misc]
    assert len({DVMSRConfig(), DVMSRConfig(), DVMSRConfig(scale=2)}) == 2


@pytest.mark.parametrize(
    "field, value",
    [
        ("channels", 0),
        ("channels", -60),
        ("channels", 60.0),
        ("channels", "60"),
        ("channels", True),
        ("channels", 10**12),
        ("state", 0),
        ("expand", None),
        ("conv_width", 0),
        ("depths", ()),
        ("depths", 4),
        ("depths", None),
        ("depths", "2222"),
        ("depths", (2, 0)),
        ("depths", (2, True)),
        ("depths", (10**9,)),
        ("depths", (1,) * 1000),
        ("scale", 1),
        ("scale", 8),
        ("scale", "4"),
        ("scale", 4.0),
        ("upsampler", "nearest"),
        ("upsampler", None),
        ("vimm_residual", 1),
        ("bidirectional", "yes"),
    ],
)
def test_rejects_nonsense(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        DVMSRConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"chanels": 60}', '{"channels": null}'])
def test_from_json_rejects(text: str) -> None:
    with pytest.raises(UsageError):
        DVMSRConfig.from_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        json.dumps({"channels": int("9" * 4000)}),
        f'{{"channels": {"9" * 6000}}}',
        f'{{"depths": {"[" * 900}60{"]" * 900}}}',
        json.dumps({"x" * 6000: 1}),
    ],
    ids=["nested", "4000 digits", "6000 digits", "deep depths", "long name"],
)
def test_from_json_rejects_monsters_in_a_short_sentence(text: str) -> None:
    with pytest.raises(UsageError) as error:
        DVMSRConfig.from_json(text)
    assert len(str(error.value)) < 300


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"pupil.*student"):
        preset("pupil")
