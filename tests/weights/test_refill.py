"""Other weights in the bundled files, against what the export makes of them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from networks import random_network
from shared import official_weights, requires_shared

from dvmsr import checkpoint
from dvmsr.config import PRESETS
from dvmsr.export.onnx.export import make_model
from dvmsr.weights import pth, refill, registry


def check(source: Path, streaming: bool) -> None:
    bundled = registry.find_model("student", streaming).read_bytes()
    data = refill.refill(bundled, pth.read(source), source.name, checkpoint.sha256(source))
    found = onnx.load_from_string(data)
    expected, _ = make_model(source, "fp32", streaming=streaming)
    assert found.graph == expected.graph
    told, wanted = (
        {p.key: p.value for p in model.metadata_props if p.key != "dvmsr.git_revision"}
        for model in (found, expected)
    )
    assert told == wanted
    before = onnx.load_from_string(bundled)
    assert found.functions == before.functions and found.opset_import == before.opset_import
    assert len(found.metadata_props) == len(before.metadata_props)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_file_is_what_the_export_makes(tmp_path: Path, streaming: bool) -> None:
    network = random_network(PRESETS["student"])
    torch.save(network.state_dict(), path := tmp_path / "random.pth")
    check(path, streaming)


@requires_shared
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["dvmsr_df2k", "dvmsr_ntire"])
def test_so_it_is_with_the_official_weights(name: str, streaming: bool) -> None:
    check(official_weights(name), streaming)


def test_other_weights_do_not_fit() -> None:
    bundled = registry.find_model("student").read_bytes()
    weights = {
        name: tensor.numpy()
        for name, tensor in random_network(PRESETS["student"]).state_dict().items()
    }
    key = "layers.3.residual_group.blocks.1.mixer.D"
    with pytest.raises(KeyError, match=key):
        refill.refill(bundled, {k: v for k, v in weights.items() if k != key}, "a.pth", "0")
    with pytest.raises(ValueError, match=r"rssb3/vimm1/scan\.D has 240 bytes"):
        refill.refill(bundled, {**weights, key: weights[key][:60]}, "a.pth", "0")
