"""What Triton's Python backend runs: a network of dvmsr, for pictures or for tensors.

`dvmsr-export triton` copies this file to where the server looks for it. The Python of the server's
stub must have dvmsr; what is served stands among the `parameters` of config.pbtxt.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from dvmsr.errors import EXPECTED, ResourceError, UsageError, explain, summary
from dvmsr.runtime import Upscaler, open_model
from dvmsr.runtime.images.formats import read_extension
from dvmsr.runtime.serving.encoded import enlarge_encoded
from dvmsr.runtime.serving.enlarging import Wish
from dvmsr.runtime.serving.refusals import Refusal
from dvmsr.utils.threads import cores

_CODES = {500: "INTERNAL", 503: "UNAVAILABLE"}
"""Of Triton for statuses of HTTP that say that it is not the client's fault."""


class TritonPythonModel:
    """One instance of a model, in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network; instances share the processors."""
        config = json.loads(args["model_config"])
        told = {name: value["string_value"] for name, value in config["parameters"].items()}
        instances = sum(group["count"] for group in config["instance_group"])
        file = Path(args["model_repository"]) / args["model_version"] / told["model"]
        kind = KINDS[told["serves"]]
        self.served = kind(str(file), told, max(1, cores() // instances))

    def execute(self, requests: list[Any]) -> list[Any]:
        """An answer or an error for each request; one that fails leaves the others alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        if request.is_cancelled():
            return _failed("the client has gone", "CANCELLED")
        try:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            outputs = self.served(inputs)
            return pb_utils.InferenceResponse(
                [pb_utils.Tensor(*named) for named in outputs.items()]
            )
        except Refusal as refusal:
            return _failed(refusal, _CODES.get(refusal.status, "INVALID_ARG"))
        except EXPECTED as error:
            told = explain(error, "the request")
            ours = isinstance(told, ResourceError)
            return _failed(told, "UNAVAILABLE" if ours else "INVALID_ARG")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            return _failed(f"a mistake in dvmsr ({summary(error)}); the server's log has more")


def _failed(reason: object, code: str = "INTERNAL") -> Any:
    """Nothing but an error, one sentence.

    Args:
        code: the name of one of Triton's.
    """
    known = getattr(pb_utils.TritonError, code)
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(reason), known))


class Pictures:
    """`picture`, a file's bytes -> `picture`, those of the enlarged one, as `dvmsr-infer` makes it,
    and `warnings`, sentences on what of it is not in the result. `format`, such as `png`, and
    `quality`, from 1 to 100, may be given."""

    def __init__(self, model: str, told: dict[str, str], threads: int) -> None:
        self.upscaler = Upscaler.from_file(model, told["runtime_backend"], threads)
        self.most_pixels = int(told["max_pixels"])

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        data, format = _one(inputs, "picture"), _one(inputs, "format")
        quality = _one(inputs, "quality")
        if quality is not None and not 1 <= quality <= 100:
            raise UsageError(f"quality must be from 1 to 100, not {quality}")
        extension = read_extension(None if format is None else format.decode(errors="replace"))
        wish = Wish(self.upscaler.model, extension, None if quality is None else int(quality))
        result = enlarge_encoded(self.upscaler, data, wish, self.most_pixels)
        return {
            "picture": np.array([result.data], np.object_),
            "warnings": np.array([text.encode() for text in result.warnings], np.object_),
        }


class Images:
    """`input` (B, 3, H, W) FP32 in [0, 1] -> `output` (B, 3, s*H, s*W) FP32 in [0, 1], RGB."""

    def __init__(self, model: str, told: dict[str, str], threads: int) -> None:
        self.upscaler = Upscaler.from_file(model, told["runtime_backend"], threads)
        self.most_pixels = int(told["max_pixels"])

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        images = inputs["input"]
        _, _, height, width = images.shape
        if height * width > self.most_pixels:
            raise UsageError(
                f"input has {width}x{height} pixels, and the service takes at most "
                f"{self.most_pixels:,}; cut it into parts"
            )
        rows = [self.upscaler(image.transpose(1, 2, 0)).transpose(2, 0, 1) for image in images]
        return {"output": np.stack(rows)}


class Tensors:
    """Arrays by the names of the network's own inputs and outputs."""

    def __init__(self, model: str, told: dict[str, str], threads: int) -> None:
        self.network = open_model(model, told["runtime_backend"], threads)

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        shapes = {name: port.shape for name, port in self.network.inputs.items()}
        # Triton knows scalars as arrays of one value.
        arrays = {
            name: array.reshape(()) if shapes.get(name) == () else array
            for name, array in inputs.items()
        }
        outputs = self.network(**arrays)
        return {name: np.ascontiguousarray(array) for name, array in outputs.items()}


KINDS: dict[str, Any] = {"pictures": Pictures, "images": Images, "tensors": Tensors}


def _one(inputs: dict[str, Any], name: str) -> Any:
    """The only value of an input; None where it was not given."""
    if name not in inputs:
        return None
    if inputs[name].size != 1:
        raise UsageError(f"{name} takes one value, not {inputs[name].size}")
    return inputs[name].reshape(-1)[0]
