from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import CONFIG, Models

from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.runtime.backends.onnxrt import composed
from dvmsr.runtime.backends.onnxrt.foreign import ForeignNetwork
from dvmsr.runtime.backends.onnxrt.network import OnnxNetwork
from dvmsr.runtime.backends.onnxrt.onnx_file import read_facts, read_header


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_reads_what_onnx_reads(models: Models, precision: str) -> None:
    path = models.onnx if precision == "fp32" else models.onnx_fp16
    header = read_header(path)
    assert header.config == CONFIG
    assert header.precision == precision
    assert header.has_operators and header.has_bodies
    assert read_facts(path).has_half == (precision == "fp16")
    assert header.metadata == {p.key: p.value for p in onnx.load(path).metadata_props}


def test_a_file_without_bodies(models: Models, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = onnx.load(models.onnx)
    del model.functions[:]
    onnx.save(model, path)
    assert not read_header(path).has_bodies
    with pytest.raises(IncompatibleModelError, match="no portable operator bodies"):
        OnnxNetwork(path, "portable", None)


@pytest.mark.parametrize("kind", ["plain", "fp16", "streaming"])
def test_the_former_form_names_the_command_that_makes_the_file_anew(
    models: Models, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "m.onnx"
    model = onnx.load(models.onnx_fp16 if kind == "fp16" else models.onnx)
    composed.inline(model)  # files of that form had no mixers
    for node in model.graph.node:
        kept = [entry for entry in node.attribute if entry.name != "delta_softplus"]
        del node.attribute[:]
        node.attribute.extend(kept)
    if kind == "streaming":
        model.metadata_props.add(key="dvmsr.streaming", value="true")
    onnx.save(model, path)
    flag = {"plain": "", "fp16": " --fp16", "streaming": " --streaming"}[kind]
    command = rf"dvmsr-export onnx \S+{flag} -o {path} --overwrite$"
    with pytest.raises(IncompatibleModelError, match=f"former form, without groups.*{command}"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no ONNX file or damaged"),
        (b"just some text, no model at all\n", "no ONNX file or damaged"),
        (b"\x08\x08", "no ONNX file or damaged"),  # a version and no graph
        (b"\x3a\xff\xff\x03", "no ONNX file or damaged"),  # a graph beyond the end
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "no ONNX file or damaged"),
        (b"\x3a\x00\x70\x01", "no ONNX file or damaged"),  # metadata that is a number
        (b"\x3a\x00\x72\x02\x0a\x05", "no ONNX file or damaged"),  # a cut metadata entry
        (b"\x3a\x02\x0a\x05", "no ONNX file or damaged"),  # a cut node
        (b"\x3a\x02\x08\x05", "no ONNX file or damaged"),  # a node that is a number
        (b"\x3a\x00", "an ONNX file of another program"),
    ],
    ids=[
        *("empty", "text", "no graph", "cut", "endless number", "number", "cut entry"),
        *("cut node", "node", "other"),
    ],
)
def test_refuses_what_is_not_ours(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(IncompatibleModelError, match=f"{complaint}; export one with"):
        read_header(path)


def test_refuses_a_real_model_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    text = """<ir_version: 8, opset_import: ["": 18]>
        g (float[1] input) => (float[1] output) { output = Neg (input) }"""
    onnx.save(onnx.parser.parse_model(text), path)
    with pytest.raises(IncompatibleModelError, match="another program"):
        read_header(path)


def test_refuses_newer_operators(models: Models, tmp_path: Path) -> None:
    model = onnx.load(models.onnx)
    next(entry for entry in model.opset_import if entry.domain == "dvmsr").version = 2
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(IncompatibleModelError, match="newer dvmsr"):
        read_header(tmp_path / "m.onnx")


@pytest.mark.parametrize("config", ["{", "[]", '{"channels": 0}', '{"heads": 4}'])
def test_refuses_an_unknown_architecture(models: Models, tmp_path: Path, config: str) -> None:
    path = tmp_path / "m.onnx"
    model = onnx.load(models.onnx)
    onnx.helper.set_model_props(model, {"dvmsr.config": config})
    onnx.save(model, path)
    with pytest.raises(IncompatibleModelError, match=r"m\.onnx cannot be used: .*; export one"):
        read_header(path)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_header(tmp_path / "m.onnx")


def test_a_damaged_graph_is_refused_when_loaded(models: Models, tmp_path: Path) -> None:
    model = onnx.load(models.onnx)
    model.graph.node[3].input[0] = "nothing"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(IncompatibleModelError, match="cannot be loaded by ONNX Runtime"):
        OnnxNetwork(tmp_path / "m.onnx", "portable", None)


@pytest.mark.parametrize(
    ("name", "count"),
    [(b"Transpose", 1), (b"patch_embed/norm", 1), (b"perm", 1), (b"output", -1), (b"height", -1)],
)
def test_names_that_are_no_text_are_told_in_a_sentence_alone(
    models: Models, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: bytes, count: int
) -> None:
    """Of what ONNX Runtime says then Python makes an error that it takes for the provider's."""
    path = tmp_path / "m.onnx"
    path.write_bytes(models.onnx.read_bytes().replace(name, b"\xff" + name[1:], count))
    for load in (OnnxNetwork, ForeignNetwork):
        with pytest.raises(IncompatibleModelError) as caught:
            load(path, "portable", None)
        said = str(caught.value)
        assert rf"\xff{name[1:].decode()}" in said and "codec" not in said
    assert capfd.readouterr().out == ""


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_bytes_end_in_one_sentence(
    models: Models, tmp_path: Path, data: st.DataObject
) -> None:
    """Any cut, and any change to the last bytes, where the metadata is."""
    content = bytearray(models.onnx.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[-data.draw(st.integers(1, 900))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.onnx"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read_header(path)
    except IncompatibleModelError as error:
        assert str(path) in str(error)
