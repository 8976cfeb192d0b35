"""DVMSR: a Mamba super-resolution network, from PyTorch to a verified engine.

Importing this package is cheap: torch, onnx and TensorRT load only with the modules that use them.
"""

__version__ = "0.1.0"
