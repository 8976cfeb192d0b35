"""`dvmsr info`: the size and cost of a network."""

import json
from pathlib import Path

from dvmsr import network_info
from dvmsr.analysis import Analysis, describe
from dvmsr.config import PRESETS, DVMSRConfig
from dvmsr.errors import MissingComponentError, UsageError
from dvmsr.runtime.backends.trt import engine_file
from dvmsr.utils.console import printable, prints_aside, say
from dvmsr.utils.paths import is_import_path
from dvmsr.utils.sizes import parse_size
from dvmsr.weights.registry import ENGINE, MODELS, find_model, model_file

DEFAULT_SIZE = "256x256"
NOTES = {
    "ntire-student": "the weights released for NTIRE 2024 have 4 RSSBs and fit the preset student"
}
"""What else to know of a preset."""


def read_config(model: str) -> tuple[DVMSRConfig, dict[str, str]]:
    """The configuration of a preset, model or file, and what an ONNX file or engine tells besides.

    Raises:
        UsageError: if there is neither a preset nor a file of that name.
        DvmsrError: if the file is not a usable model.
        MissingComponentError: for a checkpoint where torch is not installed.
    """
    if model in PRESETS:
        return PRESETS[model], {}
    path = _file(model)
    if path.suffix.lower() == ".onnx":
        from dvmsr.runtime.backends.onnxrt.onnx_file import read_header

        header = read_header(path)
        return header.config, header.metadata
    if path.suffix.lower() == ENGINE:
        engine, _ = engine_file.read_engine(path)
        return engine.config, {**engine.model, **engine.facts()}
    try:
        from dvmsr import checkpoint
    except ImportError:
        raise MissingComponentError(
            f"reading {path} needs torch and safetensors; pip install 'dvmsr[export]'"
        ) from None
    return checkpoint.load(path).config, {}


def _file(model: str) -> Path:
    """Of a name that is no preset's, or the file itself."""
    return find_model(model) if model in MODELS else model_file(model, (*PRESETS, *MODELS))


def _other_network(model: str) -> network_info.Facts | None:
    """What is known of a network of others; None for DVMSR."""
    if model in PRESETS:
        return None
    if is_import_path(model):
        with prints_aside():
            return network_info.of_factory(model)
    return network_info.of_file(_file(model))


def run(model: str, size: str | None, as_json: bool) -> None:
    """The command: describe and print.

    Raises:
        UsageError: for a size of a network of others.
    """
    height, width = parse_size("--size", size or DEFAULT_SIZE)
    facts = _other_network(model)
    if facts is not None:
        if size is not None:
            raise UsageError(
                f"{model} is another network than DVMSR, whose work for a size is not known; leave "
                "out --size"
            )
        if as_json:
            print(json.dumps({"model": model, **facts}, indent=2))
        else:
            network_info.show(model, facts)
        return
    config, metadata = read_config(model)
    analysis = describe(config, height, width)
    if as_json:
        print(json.dumps({"model": model, **analysis.to_dict(), "metadata": metadata}, indent=2))
        return

    say(_layer_table(analysis))
    facts = {
        "model": model,
        **{key.removeprefix("dvmsr."): value for key, value in metadata.items()},
        "config": config.to_json(),
        "input": f"{height}x{width} pixels",
        "parameters": f"{analysis.parameters:,}",
        "FLOPs": f"{analysis.flops / 1e9:.3f} G, a multiply-add as one",
        "  by kind": ", ".join(f"{k} {v / 1e9:.3f}" for k, v in analysis.flops_by_kind().items()),
        "  NTIRE 2024": f"{analysis.ntire_flops / 1e9:.3f} G, which leaves the scan out",
        "activations": f"{analysis.activations / 1e6:.4f} M, outputs of 3x3 convolutions",
    }
    if model in NOTES:
        facts["note"] = NOTES[model]
    indent = max(map(len, facts)) + 2
    for name, value in facts.items():
        say(f"{name:{indent}}{printable(str(value))}")


def _layer_table(analysis: Analysis) -> str:
    """A line per layer; the first two columns are left-aligned, the numbers right-aligned."""
    rows = [("layer", "kind", "output", "parameters", "M FLOPs", "NTIRE", "M activations")]
    for layer in analysis.layers:
        rows.append(
            (
                layer.name,
                layer.kind,
                "x".join(map(str, layer.output)),
                f"{layer.parameters:,}",
                f"{layer.flops / 1e6:,.1f}",
                f"{layer.ntire_flops / 1e6:,.1f}",
                f"{layer.activations / 1e6:.3f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        [f"{cell:{'<' if k < 2 else '>'}{widths[k]}}" for k, cell in enumerate(row)] for row in rows
    ]
    return "\n".join("  ".join(row).rstrip() for row in aligned) + "\n"
