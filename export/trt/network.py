"""An ONNX file of any network with dvmsr's operators, to be built as an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.export.trt import network_parity, shapes
from dvmsr.export.trt.model import LARGEST_TENSOR, load
from dvmsr.export.trt.request import Request
from dvmsr.export.trt.source import Profiles, Say, Source
from dvmsr.export.trt.tensor_sizes import largest
from dvmsr.runtime.backends.examples import read_axes, read_ranges, read_shapes
from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN, check_operators, read_facts
from dvmsr.runtime.backends.trt.engine_info import NETWORK, PRECISIONS
from dvmsr.runtime.backends.trt.profiles import InputProfile, in_words

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")


class NetworkSource(Source):
    """A file of `dvmsr-export onnx package.module:factory`, or of another program.

    Raises:
        UsageError: if an option does not go with it.
        IncompatibleModelError: if it is damaged, its operators are in another form, or it
            says anything of itself that makes no sense.
    """

    def __init__(self, request: Request, path: Path) -> None:
        self.path, self._request = path, request
        self._model = load(path)
        facts = read_facts(path)
        check_operators(path, facts)
        self._metadata = {prop.key: prop.value for prop in self._model.metadata_props}
        operators = [node for node in self._model.graph.node if node.domain == DOMAIN]
        if facts.former:
            raise IncompatibleModelError(
                f"{path} has dvmsr's operators in their former form, without groups; export it "
                "again with `dvmsr-export onnx`"
            )
        if request.plugin and not operators:
            raise UsageError(
                f"{path} has none of dvmsr's operators, which leaves the plugin nothing to do; "
                "name a file that has some, or add --no-plugin"
            )
        if request.batch:
            raise UsageError(
                f"--batch does not go with {path}; give all sizes of its inputs with --min, --opt "
                "and --max"
            )
        self.precision = self._metadata.get("dvmsr.precision") or _precision(self._model.graph)
        if self.precision not in PRECISIONS:
            raise IncompatibleModelError(
                f"{path} says that it computes in {self.precision}, which engines do not; export "
                "it again"
            )
        if request.precision not in (None, self.precision):
            raise UsageError(
                f"{path} computes in {self.precision}; export it with `dvmsr-export onnx "
                f"--{request.precision}`, or leave out --{request.precision}"
                if request.precision == "fp16"
                else f"{path} computes in {self.precision}; leave out --{request.precision}"
            )
        for read in (read_ranges, read_axes):  # what opens the engine reads them, too
            read(path, self._metadata)
        declared = _declared(path, self._model.graph)
        examples = {
            name: shape
            for name, shape in read_shapes(path, self._metadata).items()
            if len(shape) == len(declared.get(name, ()))
        }
        self._profiles, self._assumed = shapes.profiles(path, declared, examples, request.sizes)
        self._check_largest_tensor(declared)

    def exported(self) -> onnx.ModelProto:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        if NETWORK not in self._metadata:
            model.metadata_props.add(key=NETWORK, value="unknown")
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{number}"  # by which layers are known
        return model

    def profiles(self, model: onnx.ModelProto, say: Say) -> dict[str, InputProfile]:
        if self._assumed:
            taken = "; ".join(f"{name} {profile}" for name, profile in self._profiles.items())
            say(
                f"the engine will take {taken}; choose other sizes of {', '.join(self._assumed)} "
                "with --min, --opt and --max"
            )
        return self._profiles

    def products(self, model: onnx.ModelProto) -> tuple[str, ...] | None:
        if self.precision == "fp32":
            return None
        nodes = [node for node in model.graph.node if node.op_type in PRODUCTS]
        types = _types(model)
        wanted = tuple(
            node.name
            for node in nodes
            if self.precision in {types.get(name) for name in (*node.input, *node.output)}
        )
        if nodes and not wanted:
            raise IncompatibleModelError(
                f"{self.path} says that it computes in {self.precision}, but types none of its "
                "convolutions and matrix products so; export it again"
            )
        return wanted

    def check_finite(self, model: onnx.ModelProto, profiles: Profiles, say: Say) -> None:
        network_parity.check_finite(self.path, profiles, say)

    def check(self, engine: Path, profiles: Profiles, say: Say) -> None:
        network_parity.check(engine, self.path, profiles, say)

    def _check_largest_tensor(self, declared: shapes.Declared) -> None:
        highest = {name: profile.max for name, profile in self._profiles.items()}
        axes = shapes.axes_at(declared, highest)
        tensor, values = largest(self._model.graph, axes)
        if values > LARGEST_TENSOR:
            inputs = ", ".join(f"{name} {in_words(shape)}" for name, shape in highest.items())
            raise UsageError(
                f"{self.path} has a tensor of {values:,} values, {tensor}, where its inputs are "
                f"{inputs}, and TensorRT takes {LARGEST_TENSOR:,}; choose a smaller --max"
            )


def _declared(path: Path, graph: onnx.GraphProto) -> dict[str, tuple[int | str, ...]]:
    """The shapes of the inputs; a size without a name is one of its own."""
    weights = {weight.name for weight in graph.initializer}  # which old files list, too
    found: dict[str, tuple[int | str, ...]] = {}
    for value in graph.input:
        if value.name in weights:
            continue
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            raise IncompatibleModelError(
                f"{path} does not tell how many axes its input {value.name} has; export it again "
                "with shapes of its inputs"
            )
        found[value.name] = tuple(
            size.dim_value
            if size.HasField("dim_value")
            else size.dim_param or f"{value.name}_{axis}"
            for axis, size in enumerate(kind.shape.dim)
        )
    return found


def _precision(graph: onnx.GraphProto) -> str:
    """What a graph that does not say it computes in: half precision where it has any."""
    values = (value.type.tensor_type.elem_type for value in (*graph.input, *graph.output))
    kinds = {*values, *(weight.data_type for weight in graph.initializer)}
    return next((name for kind, name in _half_types().items() if kind in kinds), "fp32")


def _half_types() -> dict[int, str]:
    from onnx import TensorProto

    return {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


def _types(model: onnx.ModelProto) -> dict[str, str]:
    """`fp16` or `bf16` for every value that is known to be of that type; what a product takes and
    gives is of one."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    names = _half_types()

    def typed() -> Iterator[tuple[str, int]]:
        for value in (*graph.value_info, *graph.input, *graph.output):
            yield value.name, value.type.tensor_type.elem_type
        for weight in graph.initializer:
            yield weight.name, weight.data_type

    return {name: names[kind] for name, kind in typed() if kind in names}
