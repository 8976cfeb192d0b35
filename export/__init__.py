"""From a checkpoint to ONNX. The command line is `dvmsr-export`."""

from dvmsr.export.onnx_export import ExportReport, export_onnx
from dvmsr.export.parity import Parity

__all__ = ["ExportReport", "Parity", "export_onnx"]
