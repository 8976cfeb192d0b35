"""dvmsr's operators in PyTorch's exporter: each becomes one node of domain `dvmsr`."""

from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnx.defs import OpSchema
from onnxscript import values

from dvmsr.kernels.cpu import CONV_ARGUMENTS, SCAN_ARGUMENTS
from dvmsr.ops import native_cpu  # noqa: F401  registers them with PyTorch
from dvmsr.runtime.backends.onnxrt.onnx_file import ATTRIBUTES, DOMAIN, DOMAIN_VERSION

_ACTIVATIONS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]
_SCAN = {
    "inputs": SCAN_ARGUMENTS,
    "outputs": "y h_last",
    "activations": "u delta B C z y",
    "attribute": "delta_softplus",
}
_CONV = {
    "inputs": CONV_ARGUMENTS,
    "outputs": "y new_tail",
    "activations": "x tail y new_tail",
    "attribute": "activation",
}


def translations() -> dict[Any, Callable[..., Any]]:
    """For `torch.onnx.export`, by PyTorch operator."""
    scan, conv = _operator("SelectiveScan", **_SCAN), _operator("CausalConv1d", **_CONV)

    def selective_scan(*arguments: Any) -> Any:
        *tensors, softplus, channel_major = arguments
        given = [tensor for tensor in tensors if tensor is not None]  # z, the last, may be
        layout = {"channel_major": 1} if channel_major else {}
        return scan(*given, delta_softplus=int(softplus), **layout, **ATTRIBUTES)

    def causal_conv1d(*arguments: Any) -> Any:
        *tensors, activation = arguments
        return conv(*tensors, activation=int(activation), **ATTRIBUTES)

    return {
        torch.ops.dvmsr.selective_scan.default: selective_scan,
        torch.ops.dvmsr.causal_conv1d.default: causal_conv1d,
    }


def _operator(name: str, inputs: str, outputs: str, activations: str, attribute: str) -> values.Op:
    def parameter(port: str) -> OpSchema.FormalParameter:
        option = OpSchema.FormalParameterOption
        kind = "T" if port in activations.split() else "tensor(float)"
        return OpSchema.FormalParameter(
            port, kind, param_option=option.Optional if port == "z" else option.Single
        )

    defaults = {attribute: 1, **ATTRIBUTES}
    if name == "SelectiveScan":
        defaults["channel_major"] = 0
    schema = OpSchema(
        name,
        DOMAIN,
        DOMAIN_VERSION,
        inputs=[parameter(port) for port in inputs.split()],
        outputs=[parameter(port) for port in outputs.split()],
        type_constraints=[("T", _ACTIVATIONS, "activations")],
        attributes=[
            OpSchema.Attribute(key, onnx.helper.make_attribute(key, value))
            for key, value in defaults.items()
        ],
    )
    return values.Op(values.Opset(DOMAIN, DOMAIN_VERSION), name, schema)
