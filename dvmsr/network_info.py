"""What `dvmsr info` tells of networks other than DVMSR."""

from collections import Counter
from pathlib import Path
from typing import Any

from dvmsr.errors import MissingComponentError
from dvmsr.runtime.backends.onnxrt.onnx_file import is_foreign, read_facts
from dvmsr.runtime.backends.trt import engine_file
from dvmsr.utils.console import printable, say
from dvmsr.weights.registry import ENGINE

Facts = dict[str, Any]
"""JSON-ready."""
_STAND_INS = "dvmsr.compat"
_ITSELF = "(itself)"
_HEADINGS = {"parameters_by_module": "  by module", "stand_ins": "modules of stand-ins"}


def of_file(path: Path) -> Facts | None:
    """What is known of another network in an ONNX file or engine; None where it holds DVMSR, or is
    a file of another kind.

    Raises:
        DvmsrError: if it cannot be read, or is none.
        MissingComponentError: if onnx is not installed.
    """
    if path.suffix.lower() == ENGINE:
        engine = engine_file.read_info(path)
        if not is_foreign(engine.model):
            return None
        engine_file.read_engine(path)  # are the two a pair?
        return {**engine.facts(), "metadata": engine.model}
    if path.suffix.lower() != ".onnx" or not is_foreign(read_facts(path).metadata):
        return None
    try:
        from dvmsr.runtime.backends.onnxrt.contents import read_contents
    except ModuleNotFoundError as error:
        raise MissingComponentError(
            f"what is in {path} is read with {error.name}: pip install 'dvmsr[export]'"
        ) from None
    return read_contents(path)


def of_factory(name: str) -> Facts:
    """What is known of what `package.module:factory` returns.

    Raises:
        DvmsrError: if it fails.
        MissingComponentError: if PyTorch, or a package that it imports, is not installed.
    """
    from dvmsr.runtime.backends.pytorch.tensors import TorchTensors

    network = TorchTensors(name, None)
    module = network.module
    used = Counter(
        type(part).__name__
        for part in module.modules()
        if type(part).__module__.startswith(_STAND_INS)
    )
    return {
        "class": type(module).__name__,
        "precision": network.precision,
        "inputs": {name: {"optional": port.optional} for name, port in network.inputs.items()},
        "parameters": _count(module.parameters()),
        "parameters_by_module": _by_module(module),
        "stand_ins": dict(used.most_common()),
    }


def _by_module(module: Any) -> dict[str, int]:
    """Of the topmost modules; those that do nothing but wrap one other are left out."""
    prefix = ""
    while not (own := _count(module.parameters(recurse=False))):
        children = list(module.named_children())
        if len(children) != 1:
            break
        prefix += f"{children[0][0]}."
        module = children[0][1]
    itself = {prefix.removesuffix(".") or _ITSELF: own} if own else {}
    parts = {f"{prefix}{name}": _count(part.parameters()) for name, part in module.named_children()}
    return {**itself, **parts}


def _count(weights: Any) -> int:
    return sum(weight.numel() for weight in weights)


def show(model: str, facts: Facts) -> None:
    """Print them for a person."""
    lines = {"model": model}
    for name, value in facts.items():
        if name == "metadata":
            lines |= {key.removeprefix("dvmsr."): text for key, text in value.items()}
        else:
            lines[_HEADINGS.get(name, name)] = _words(name, value)
    indent = max(map(len, lines)) + 2
    for name, text in lines.items():
        say(f"{name:{indent}}{printable(text)}")


def _words(name: str, value: Any) -> str:
    if name == "scans":
        return "; ".join(map(_scan, value)) or "none"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, dict):
        return str(value)
    if name in ("inputs", "outputs"):
        return ", ".join(f"{port} {_port(what)}".strip() for port, what in value.items()) or "none"
    total = f"{sum(value.values()):,}: " if name == "nodes" else ""
    return total + (", ".join(f"{count:,} {kind}" for kind, count in value.items()) or "none")


def _port(facts: Facts) -> str:
    if "optional" in facts:
        return "(may be left out)" if facts["optional"] else ""
    shape = "any shape" if facts["shape"] is None else f"({', '.join(map(str, facts['shape']))})"
    return f"{facts['dtype']} {shape}"


def _scan(form: Facts) -> str:
    sizes = ", ".join(f"{axis} {form[axis] or 'unknown'}" for axis in "DNG")
    gate = "a gate" if form["gate"] else "no gate"
    return f"{form['count']} of {sizes}, {gate}" + ", channel-major" * form["channel_major"]
