"""Any ONNX network: arrays in, arrays out, by name."""

import os
from pathlib import Path
from typing import Any

from dvmsr.errors import IncompatibleModelError
from dvmsr.runtime.backends.examples import read_examples
from dvmsr.runtime.backends.onnxrt.network import open_on, options_for, run_session
from dvmsr.runtime.backends.onnxrt.onnx_file import check_bodies, check_operators, read_facts
from dvmsr.runtime.backends.tensors import PRECISIONS, Arrays, Port, TensorNetwork
from dvmsr.utils.threads import bounded

_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int16)": "int16",
    "tensor(int8)": "int8", "tensor(uint64)": "uint64", "tensor(uint32)": "uint32",
    "tensor(uint16)": "uint16", "tensor(uint8)": "uint8", "tensor(bool)": "bool",
    "tensor(string)": "object", "tensor(bfloat16)": "bfloat16",
}  # fmt: skip


class OnnxTensors(TensorNetwork):
    """A network in an ONNX file, such as `dvmsr-export onnx package.module:factory` writes.

    May be called by several threads.

    Args:
        backend: `native` uses the operators of dvmsr's own library, `portable` their bodies in the
            file, `cuda` runs on a GPU.
        threads: how many ONNX Runtime uses; None leaves it to ONNX Runtime.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it cannot be read.
        IncompatibleModelError: if it is no ONNX file that ONNX Runtime runs, or one with other
            values than arrays, or that tells what makes no sense of its examples.
        MissingComponentError: if the library or the GPU is missing or does not load.
    """

    def __init__(self, path: Path, backend: str, threads: int | None) -> None:
        facts = read_facts(path)
        check_operators(path, facts)
        if backend == "portable":
            check_bodies(path, facts)
        self.path, self.model, self.backend = path, str(path), backend
        options = options_for(backend, bounded(threads), facts.has_half)
        self._session = open_on(backend, os.fspath(path), options, path)
        self.inputs = {v.name: _port(path, v) for v in self._session.get_inputs()}
        self.outputs = {v.name: _port(path, v) for v in self._session.get_outputs()}
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.examples = read_examples(path, self.metadata, self.inputs)
        types = [port.dtype for port in (*self.inputs.values(), *self.outputs.values())]
        half = "fp16" if "float16" in types else "fp32"
        self.precision = self.metadata.get("dvmsr.precision", half)
        if self.precision not in PRECISIONS:
            raise IncompatibleModelError(f"{path} has a damaged dvmsr.precision; export it again")

    def _run(self, feeds: Arrays) -> Arrays:
        names = list(self.outputs)
        values = run_session(
            *(self._session, names, feeds, self.path, self.time_limit),
            remedy="give inputs of the sizes that it takes, or smaller ones",
        )
        return dict(zip(names, values, strict=True))


def _port(path: Path, value: Any) -> Port:
    if value.type not in _TYPES:
        raise IncompatibleModelError(
            f"{path} has {value.name} of type {value.type}, which is no array of NumPy; export it "
            "with tensors alone"
        )
    shape = tuple(size if isinstance(size, (int, str)) else "?" for size in value.shape)
    return Port(shape, _TYPES[value.type])
