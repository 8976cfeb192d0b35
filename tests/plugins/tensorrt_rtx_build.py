"""Builds a plan with TensorRT for RTX and the plugin, in a process of its own.

Arguments: the plugin library (or "" for none) and an ONNX file without function bodies. Prints
JSON; the messages go to stderr. Its registry wants `libtensorrt_rtx.so` on LD_LIBRARY_PATH.
"""

from __future__ import annotations

import json
import sys

import tensorrt_rtx_bindings as trt


def main(library: str, model: str) -> dict[str, object]:
    logger = trt.Logger(trt.Logger.WARNING)
    if library:
        trt.get_plugin_registry().load_library(library)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(model):
        return {"errors": [parser.get_error(i).desc() for i in range(parser.num_errors)]}
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    plugins = [layer.name for layer in layers if layer.type == trt.LayerType.PLUGIN_V3]

    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for tensor in map(network.get_input, range(network.num_inputs)):
        if tensor.is_shape_tensor:  # the flags of a streaming model
            profile.set_shape_input(tensor.name, [0], [0], [1])
        elif tensor.name == "input":
            profile.set_shape("input", (1, 3, 16, 16), (1, 3, 64, 64), (2, 3, 1024, 1024))
        else:  # states
            profile.set_shape(tensor.name, *(state_shape(tensor.shape, *n) for n in STATES))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return {"plugins": plugins, "plan_bytes": plan.nbytes if plan else 0}


STATES = (1, 16), (1, 64), (2, 1024)
"""Batch and width: least, usual, most."""


def state_shape(declared: trt.Dims, batch: int, width: int) -> tuple[int, ...]:
    return batch, *(width if size < 0 else size for size in tuple(declared)[1:])


print(json.dumps(main(*sys.argv[1:])))
