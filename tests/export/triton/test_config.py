"""Protobuf text, read by protobuf."""

from __future__ import annotations

from pathlib import Path

from triton_config import read

from dvmsr.export.triton.config import Symbol, instances, parameters, to_text


def test_every_kind_of_field(tmp_path: Path) -> None:
    message = {
        "name": 'a "name"\\\n\t\x01 größer',
        "max_batch_size": 4,
        "input": [
            {"name": "x", "data_type": Symbol("TYPE_FP16"), "dims": [3, -1], "optional": True},
            {"name": "n", "data_type": Symbol("TYPE_INT64"), "dims": [1], "reshape": {}},
        ],
        "dynamic_batching": {},
        "instance_group": instances(2, "GPU"),
        "parameters": parameters(one=1, two="zwei"),
    }
    (tmp_path / "config.pbtxt").write_text(to_text(message), encoding="utf-8")
    config = read(tmp_path)
    assert config.name == message["name"] and config.max_batch_size == 4
    assert [list(port.dims) for port in config.input] == [[3, -1], [1]]
    assert [port.optional for port in config.input] == [True, False]
    assert config.input[1].HasField("reshape") and config.HasField("dynamic_batching")
    assert config.instance_group[0].count == 2
    values = {key: value.string_value for key, value in config.parameters.items()}
    assert values == {"one": "1", "two": "zwei"}
