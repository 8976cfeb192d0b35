"""From a checkpoint to ONNX. The command line is `dvmsr-export`."""

from dvmsr.export.onnx.export import ExportReport, export_onnx
from dvmsr.export.onnx.parity import Parity

__all__ = ["ExportReport", "Parity", "export_onnx"]
