"""A PyTorch network as an ONNX graph, by torch.export and PyTorch's own exporter."""

import contextlib
import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import onnx
import torch
from torch import nn

from dvmsr.errors import IncompatibleModelError, summary
from dvmsr.export.network.einsum import replace_einsum
from dvmsr.export.network.inputs import Inputs
from dvmsr.export.network.operators import translations
from dvmsr.export.network.slices import join_assignments

_SPECIALISED = re.compile(
    "specialized it to be a constant|inferred to be a constant|inferred ranges from model tracing"
)
_NO_TRANSLATION = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'")
_NOT_THE_USER = ("/torch/", "/onnxscript/", "/onnx_ir/", "/dvmsr/", "/contextlib.py")


def capture(
    module: nn.Module,
    inputs: Inputs,
    names: Sequence[str],
    opset: int,
    progress: Callable[[str], None],
) -> onnx.ModelProto:
    """The graph of a network in standard operators and dvmsr's, without bodies.

    Inputs keep the names of forward's parameters, dynamic axes those of `inputs`. Nodes say in
    their metadata which line they came from.

    Args:
        names: of the outputs; one that is taken already gets `_out` behind it.

    Raises:
        IncompatibleModelError: if PyTorch cannot trace the network or has no translation of an
            operator; the message names the line.
    """
    dynamic = {
        name: dict.fromkeys(inputs.dynamic.get(name, {}), torch.export.Dim.DYNAMIC)
        for name in inputs.tensors
    }
    # torch.export takes a size of 1 for a constant.
    traced = inputs.resized({label: max(size, 2) for label, size in inputs.axes.items()})
    progress("tracing the network with torch.export")
    with _quiet(), torch.no_grad():
        try:
            program = torch.export.export(
                module,
                (),
                traced,
                dynamic_shapes=dynamic,
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
        except Exception as error:
            raise _untraceable(error, inputs) from None
    with _quiet():
        program = program.run_decompositions({})  # no operator changes its inputs any more
    for guard in guards_of(program, inputs):
        progress(f"the file is right where {guard} alone: the network decides by that size")
    if joined := join_assignments(program):
        progress(f"{joined} assignments to slices became concatenations")
    if replaced := replace_einsum(program):
        progress(f"{replaced} einsums became matrix products")
    progress("translating it to ONNX")
    with _quiet():
        try:
            translated = torch.onnx.export(
                program,
                dynamo=True,
                custom_translation_table=translations(),
                opset_version=opset,
                optimize=True,
                verbose=False,
            )
        except Exception as error:
            raise _untranslatable(error, program) from None
    assert translated is not None
    model = translated.model_proto
    _name_outputs(model, names)
    _name_inputs(model, list(inputs.tensors))
    _name_axes(model, inputs)
    return model


def guards_of(program: torch.export.ExportedProgram, inputs: Inputs) -> list[str]:
    """In words, the sizes of dynamic axes within which a traced network took the branches that are
    in the graph. Of remainders, such as a multiple of 8, torch.export tells nothing."""
    ranges = {str(symbol): bounds for symbol, bounds in program.range_constraints.items()}
    found = []
    for node in program.graph.find_nodes(op="placeholder"):
        for axis, label in inputs.dynamic.get(node.name, {}).items():
            bounds = ranges.get(str(node.meta["val"].shape[axis]))
            if bounds is None:
                continue
            if bounds.upper < 2**31:
                found.append(f"{label} is at most {bounds.upper}")
            if bounds.lower > 2:  # below which torch.export traces nothing
                found.append(f"{label} is at least {bounds.lower}")
    return list(dict.fromkeys(found))


def line_of(node: onnx.NodeProto) -> str:
    """The line of Python that a node of `capture` came from; empty if it does not tell."""
    stack = {entry.key: entry.value for entry in node.metadata_props}.get(
        "pkg.torch.onnx.stack_trace", ""
    )
    return _last_line(stack)


def _last_line(stack: str) -> str:
    places = re.findall(r'File "([^"]+)", line (\d+)', stack)
    own = [place for place in places if not any(part in place[0] for part in _NOT_THE_USER)]
    return f"{own[-1][0]}, line {own[-1][1]}" if own else ""


def frame_of(trace: TracebackType | None) -> str:
    """The innermost line of the network's own code in a traceback."""
    return _last_line("".join(traceback.format_tb(trace)))


def _untraceable(error: Exception, inputs: Inputs) -> IncompatibleModelError:
    text = str(error)
    place = frame_of(error.__traceback__)
    where = f" at {place}" if place else ""
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return IncompatibleModelError(
            f"the network decides by values of its data{where}, which a graph cannot; write it "
            "with torch.where, or decide by shapes"
        )
    if _SPECIALISED.search(text):
        axes = ", ".join(
            label
            for name, named in inputs.dynamic.items()
            for axis, label in named.items()
            if f"L['{name}'].size()[{axis}]" in text
        )
        return IncompatibleModelError(
            f"the network fixes the size of {axes or 'a dynamic axis'} by its own arithmetic "
            f"({summary(error)}); compute with sizes as they are, without int() and constants, or "
            "leave the axis out of the dynamic ones"
        )
    kind = type(error).__name__
    reason = " ".join(text.split())[:300]
    return IncompatibleModelError(
        f"torch.export cannot trace the network{where} ({kind}: {reason}); change that line, or "
        "replace that part by operators that can be traced"
    )


def _untranslatable(
    error: BaseException, program: torch.export.ExportedProgram
) -> IncompatibleModelError:
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    text = "\n".join(texts)
    if match := _NO_TRANSLATION.search(text):
        operator = match[1].replace("::", ".")
        place = next(
            (
                _last_line(node.meta.get("stack_trace") or "")
                for node in program.graph.nodes
                if str(node.target).startswith(operator)
            ),
            "",
        )
        return IncompatibleModelError(
            f"PyTorch cannot translate its operator {operator} to ONNX"
            f"{f', used at {place}' if place else ''}; write that line with other operators"
        )
    return IncompatibleModelError(
        f"PyTorch cannot translate the network to ONNX ({summary(error)}); "
        "a newer torch or onnxscript may"
    )


def _name_axes(model: onnx.ModelProto, inputs: Inputs) -> None:
    """Give PyTorch's symbols for sizes (s0, s53 …) the names of the dynamic axes."""
    names: dict[str, str] = {}
    for value in model.graph.input:
        sizes = value.type.tensor_type.shape.dim
        for axis, label in inputs.dynamic.get(value.name, {}).items():
            if axis < len(sizes) and sizes[axis].dim_param:
                names[sizes[axis].dim_param] = label
    if not names:
        return
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = pattern.sub(lambda match: names[match[1]], size.dim_param)


def _name_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    graph = model.graph
    taken = {value.name for value in (*graph.input, *graph.initializer)}
    taken |= {name for node in graph.node for name in node.output}
    taken -= {value.name for value in graph.output}
    renamed: dict[str, str] = {}
    given = {value.name for value in (*graph.input, *graph.initializer)}
    for value, name in zip(graph.output, names, strict=True):
        if value.name in given or value.name in renamed:  # what is given is not to be renamed
            copy = f"{value.name}/output_{len(renamed)}"
            graph.node.append(onnx.helper.make_node("Identity", [value.name], [copy], copy))
            value.name = copy
        while name in taken:
            name += "_out"
        taken.add(name)
        renamed[value.name] = name
        value.name = name
    _rename(graph, renamed)
    told = [value for value in graph.value_info if value.name not in renamed]
    del graph.value_info[:]
    graph.value_info.extend(told)


def _name_inputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """PyTorch renames an input that is an output, too."""
    graph = model.graph
    renamed = {
        value.name: name
        for value, name in zip(graph.input, names, strict=True)
        if value.name != name
    }
    for value in graph.input:
        value.name = renamed.get(value.name, value.name)
    _rename(graph, renamed)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        for values in (node.input, node.output):
            for i, name in enumerate(values):
                if name in names:
                    values[i] = names[name]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch's exporter says of itself; errors stay."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
