"""Questions to a Triton server, over HTTP or gRPC."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from triton_server import Server

PROTOCOLS = ("http", "grpc")
_TYPES = {"float32": "FP32", "float16": "FP16", "int32": "INT32", "int64": "INT64"}


def inputs(protocol: str, arrays: dict[str, NDArray[Any]]) -> list[Any]:
    """The inputs of a request; arrays of objects are of bytes."""
    import tritonclient.grpc
    import tritonclient.http

    module: Any = tritonclient.grpc if protocol == "grpc" else tritonclient.http
    made = []
    for name, array in arrays.items():
        kind = "BYTES" if array.dtype == object else _TYPES[array.dtype.name]
        given = module.InferInput(name, list(array.shape), kind)
        given.set_data_from_numpy(array)
        made.append(given)
    return made


def picture_arrays(data: bytes, **options: Any) -> dict[str, NDArray[Any]]:
    """What is asked of a model for pictures: the file, and `format` and `quality`."""
    arrays: dict[str, NDArray[Any]] = {"picture": np.array([data], object)}
    if "format" in options:
        arrays["format"] = np.array([options["format"].encode()], object)
    if "quality" in options:
        arrays["quality"] = np.array([options["quality"]], np.int32)
    return arrays


def ask(
    server: Server, model: str, arrays: dict[str, NDArray[Any]], protocol: str = "http"
) -> dict[str, NDArray[Any]]:
    """All outputs by name.

    Raises:
        InferenceServerException: if the server answers with an error.
    """
    with server.client(protocol) as client:
        answer = client.infer(model, inputs(protocol, arrays))
    outputs = (
        answer.get_response()["outputs"] if protocol == "http" else answer.get_response().outputs
    )
    names = [out["name"] if protocol == "http" else out.name for out in outputs]
    return {name: answer.as_numpy(name) for name in names}


def enlarge(
    server: Server,
    data: bytes,
    model: str = "student-pictures",
    protocol: str = "http",
    **options: Any,
) -> bytes:
    """A picture's file enlarged; errors as of `ask`."""
    return bytes(ask(server, model, picture_arrays(data, **options), protocol)["picture"][0])
