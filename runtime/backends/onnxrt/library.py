"""ONNX Runtime's Python module, imported here alone, so that nothing of it goes before this.

Since 1.29 it keeps an identifier and a data base of events below the user's cache folder, which
hold the interpreter's path, the processor and the kind of container, and looks for the host that
takes them. ORT_DISABLE_TELEMETRY has it do neither; who sets that variable decides.
"""

import os

if not os.environ.get("ORT_DISABLE_TELEMETRY"):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["onnxruntime"]
