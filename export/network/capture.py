"""A PyTorch network as an ONNX graph, by torch.export and PyTorch's own exporter."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx
import torch
from torch import nn

from dvmsr.errors import IncompatibleModelError, summary
from dvmsr.export.network import missing, operators
from dvmsr.export.network.attention import arrange_attention
from dvmsr.export.network.decisions import Decision, Decisions, fixed_at, recording
from dvmsr.export.network.einsum import replace_einsum
from dvmsr.export.network.folding import optimise
from dvmsr.export.network.gathers import replace_indexing
from dvmsr.export.network.inputs import Inputs
from dvmsr.export.network.lines import last_line, line_in
from dvmsr.export.network.slices import join_assignments

_SPECIALISED = re.compile(
    "specialized it to be a constant|inferred to be a constant|inferred ranges from model tracing"
)
_NOT_TRANSLATED = re.compile(r"translating node .*?target=torch\.ops\.([\w.]+)\]")
_NO_TRANSLATION = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'")


def capture(
    module: nn.Module,
    inputs: Inputs,
    names: Sequence[str],
    opset: int,
    progress: Callable[[str], None],
) -> tuple[onnx.ModelProto, list[Decision]]:
    """The graph of a network in standard operators and dvmsr's, without bodies, and what its code
    decided by sizes.

    Inputs keep the names of forward's parameters, dynamic axes those of `inputs`. Nodes say in
    their metadata which line they came from.

    Args:
        names: of the outputs; one that is taken already gets `_out` behind it.

    Raises:
        IncompatibleModelError: if PyTorch cannot trace the network or has no translation of an
            operator; the message names the line.
    """
    # torch.export takes a size of 1 for a constant.
    sizes = {label: max(size, 2) for label, size in inputs.axes.items()}
    progress("tracing the network with torch.export")
    program, noted = _traced(module, inputs, sizes)
    if small := noted.ones(inputs):
        program, noted = _larger(module, inputs, sizes, small, program, noted, progress)
    if _writes_to_parts(program):  # otherwise it is not worth a third of an export's time
        with _quiet():
            program = program.run_decompositions({})
    for guard in guards_of(program, inputs):
        progress(f"the file is right where {guard} alone: the network decides by that size")
    decisions = noted.of(inputs)
    for decision in decisions:
        if not decision.is_range:  # told already
            progress(
                f"the file holds what the network does where {decision.holds}: it decides by that "
                f"at {decision.line}"
            )
    if joined := join_assignments(program):
        progress(f"{joined} assignments to slices became concatenations")
    if replaced := replace_einsum(program):
        progress(f"{replaced} einsums became matrix products")
    replace_indexing(program)
    arrange_attention(program, opset)
    progress("translating it to ONNX")
    with _quiet():
        try:
            translated = torch.onnx.export(
                program,
                dynamo=True,
                custom_translation_table=operators.translations() | missing.translations(),
                opset_version=opset,
                optimize=False,
                verbose=False,
            )
            assert translated is not None
            optimise(translated.model)
        except Exception as error:
            raise _untranslatable(error, program) from None
    model = translated.model_proto
    _name_outputs(model, names)
    _name_inputs(model, list(inputs.tensors))
    _name_axes(model, inputs)
    return model, decisions


def _writes_to_parts(program: torch.export.ExportedProgram) -> bool:
    """Whether an operator writes to a view of a tensor, or there are graphs within the graph: then
    assignments and einsums show only once PyTorch has rewritten it."""
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return True
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            written = node.args[0] if node.args else None
            if isinstance(written, torch.fx.Node) and _is_view(written):
                return True
    return False


def _is_view(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and any(
        value.alias_info is not None for value in node.target._schema.returns
    )


def _traced(
    module: nn.Module, inputs: Inputs, sizes: Mapping[str, int]
) -> tuple[torch.export.ExportedProgram, Decisions]:
    dynamic = {
        name: dict.fromkeys(inputs.dynamic.get(name, {}), torch.export.Dim.DYNAMIC)
        for name in inputs.tensors
    }
    with recording() as noted, _quiet(), torch.no_grad():
        try:
            program = torch.export.export(
                module,
                (),
                inputs.resized(sizes),
                dynamic_shapes=dynamic,
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
        except Exception as error:
            raise _untraceable(error, inputs, noted.of(inputs)) from None
    return program, noted


def _larger(
    module: nn.Module,
    inputs: Inputs,
    sizes: Mapping[str, int],
    small: Sequence[str],
    program: torch.export.ExportedProgram,
    noted: Decisions,
    progress: Callable[[str], None],
) -> tuple[torch.export.ExportedProgram, Decisions]:
    """Traced again at twice the sizes of which something of size 1 is made, such as the number of
    windows, for that would be a constant, too; or as it was, where that does not go."""
    doubled = {label: size * 2 if label in small else size for label, size in sizes.items()}
    named = ", ".join(f"{label} {doubled[label]}" for label in small)
    try:
        again, noted_again = _traced(module, inputs, doubled)
    except IncompatibleModelError:
        again, noted_again = program, noted
    if noted_again.ones(inputs):
        progress(
            f"of {', '.join(small)} something is made whose size is 1 with the example, and it may "
            "stay 1 in the file; give a larger example if the file fails at other sizes"
        )
        return program, noted
    progress(f"traced again at {named}: with the example something made of that has the size 1")
    return again, noted_again


def guards_of(program: torch.export.ExportedProgram, inputs: Inputs) -> list[str]:
    """In words, the sizes of dynamic axes within which a traced network took the branches that are
    in the graph."""
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


def _untraceable(
    error: Exception, inputs: Inputs, decisions: Sequence[Decision]
) -> IncompatibleModelError:
    text = str(error)
    place = line_in(error.__traceback__)
    where = f" at {place}" if place else ""
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return IncompatibleModelError(
            f"the network decides by values of its data{where}, which a graph cannot; write it "
            "with torch.where, or decide by shapes"
        )
    if _SPECIALISED.search(text):
        axes = [
            label
            for name, named in inputs.dynamic.items()
            for axis, label in named.items()
            if f"['{name}'].size()[{axis}]" in text or f"['{name}'].shape[{axis}]" in text
        ]
        return IncompatibleModelError(
            f"the network fixes the size of {', '.join(axes) or 'a dynamic axis'}"
            f"{fixed_at(decisions)}; compute with sizes as they are, as in a // b, without int(), "
            "numel() and constants, or leave the axis out of the dynamic ones"
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
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    text = "\n".join(map(str, causes))
    if match := _NO_TRANSLATION.search(text):
        return IncompatibleModelError(
            f"PyTorch cannot translate {_operator(match[1], program)} to ONNX; write that line "
            "with other operators"
        )
    reason = summary(causes[-1])[:300]
    if match := _NOT_TRANSLATED.search(text):
        return IncompatibleModelError(
            f"PyTorch cannot translate {_operator(match[1], program)} to ONNX as it is called "
            f"there ({reason}); write that line otherwise"
        )
    return IncompatibleModelError(
        f"PyTorch cannot translate the network to ONNX ({reason}); a newer torch or onnxscript may"
    )


def _operator(name: str, program: torch.export.ExportedProgram) -> str:
    operator = name.replace("::", ".")
    lines = (
        last_line(node.meta.get("stack_trace") or "")
        for node in program.graph.nodes
        if str(node.target).startswith(operator)
    )
    place = next(lines, "")
    return f"its operator {operator}{f', used at {place},' if place else ''}"


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
        # It prints the graph so far where it fails.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
