from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dvmsr.analysis import Analysis, describe
from dvmsr.config import PRESETS, DVMSRConfig, preset
from dvmsr.model import DVMSR

CONFIGS: dict[str, dict[str, Any]] = {
    "student": {},
    "odd": {"channels": 18, "depths": (1, 3), "state": 5, "expand": 3, "conv_width": 2},
    "bidirectional": {"depths": (2,), "bidirectional": True, "vimm_residual": True},
    "shuffle-x2": {"depths": (1,), "scale": 2, "upsampler": "pixelshuffle"},
    "shuffle-x3": {"depths": (1,), "scale": 3, "upsampler": "pixelshuffle"},
    "shuffle-x4": {"depths": (1,), "scale": 4, "upsampler": "pixelshuffle"},
}


def on_meta(config: DVMSRConfig) -> DVMSR:
    with torch.device("meta"):
        return DVMSR(config)


def test_the_papers_figures() -> None:
    student = describe(preset("student"))
    assert (student.height, student.width) == (256, 256)
    assert student.parameters == 424_428
    assert student.ntire_flops == 20_168_048_640  # the challenge's results: 20.16804864 G
    assert student.activations == 26_738_688  # 26.738688 M
    assert sum(layer.kind == "conv2d" for layer in student.layers) == 7


def test_complete_count_of_one_token() -> None:
    """A network small enough to count by hand: C = 1, D = N = K = R = 1, one pixel."""
    config = DVMSRConfig(channels=1, depths=(1,), state=1, expand=1, conv_width=1, scale=2)
    flops = {layer.name: layer.flops for layer in describe(config, 1, 1).layers}
    mixer = "layers.0.residual_group.blocks.0.mixer"
    assert flops == {
        "input - mean": 3,
        "conv_first": 27,
        "patch_embed.norm": 5,
        "layers.0.residual_group.blocks.0.norm": 5,
        f"{mixer}.in_proj": 2,
        f"{mixer}.conv1d": 1 + 3,
        f"{mixer}.x_proj": 3,
        f"{mixer}.dt_proj": 1,
        f"{mixer}.scan": 3 + 1 + 5 + 1 + 4,
        f"{mixer}.out_proj": 1,
        "layers.0.conv": 9,
        "layers.0 + input": 1,
        "norm_f": 5,
        "conv_after_body": 9,
        "conv_after_body + conv_first": 1,
        "upsample.0": 108,
        "output + mean": 12,
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_of_every_layer_are_the_models(name: str) -> None:
    config = DVMSRConfig(**CONFIGS[name])
    model = on_meta(config)
    expected: dict[str, int] = {}
    for key, parameter in model.named_parameters():
        owner, _, leaf = key.rpartition(".")
        if leaf in ("A_log", "D", "A_b_log", "D_b"):
            owner += ".scan_b" if "_b" in leaf else ".scan"
        expected[owner] = expected.get(owner, 0) + parameter.numel()
    found = {layer.name: layer.parameters for layer in describe(config).layers if layer.parameters}
    assert found == expected


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_of_the_presets(name: str) -> None:
    total = sum(parameter.numel() for parameter in on_meta(preset(name)).parameters())
    assert describe(preset(name)).parameters == total


@pytest.mark.parametrize("name", CONFIGS)
def test_multiply_adds_are_those_torch_counts(name: str) -> None:
    config = DVMSRConfig(**CONFIGS[name])
    h, w = 3, 5
    model = on_meta(config)
    shapes: dict[str, tuple[int, ...]] = {}

    def remember(module: str) -> Any:
        return lambda _m, _i, output: shapes.__setitem__(module, tuple(output.shape[1:]))

    for path, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.LayerNorm)):
            module.register_forward_hook(remember(path))
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, h, w, device="meta"))
    counts = {str(op): count // 2 for op, count in counter.get_flop_counts()["Global"].items()}
    analysis = describe(config, h, w)
    assert counts["aten.convolution"] == total(analysis, "conv2d")
    assert counts["aten.mm"] == total(analysis, "linear")
    rows = {
        layer.name: layer.output for layer in analysis.layers if layer.kind in ("conv2d", "norm")
    }
    assert rows == shapes


def total(analysis: Analysis, kind: str) -> int:
    return analysis.flops_by_kind()[kind]


def test_totals_are_the_sums_and_json_ready() -> None:
    analysis = describe(DVMSRConfig(depths=(1,)), 8, 9)
    values = json.loads(json.dumps(analysis.to_dict()))
    for key in ("parameters", "flops", "ntire_flops", "activations"):
        assert values[key] == sum(layer[key] for layer in values["layers"]) > 0
    assert sum(values["flops_by_kind"].values()) == values["flops"]
    assert values["config"] == analysis.config.to_dict()
    assert values["layers"][1]["output"] == [60, 8, 9]


def test_costs_grow_with_the_image() -> None:
    one, four = describe(DVMSRConfig(), 16, 16), describe(DVMSRConfig(), 32, 32)
    assert four.flops == 4 * one.flops and four.activations == 4 * one.activations
    assert four.parameters == one.parameters
