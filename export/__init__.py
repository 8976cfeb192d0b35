"""From PyTorch to ONNX. The command line is `dvmsr-export`."""

from dvmsr.export.network.export import NetworkReport, export_network
from dvmsr.export.onnx.export import ExportReport, export_onnx
from dvmsr.export.onnx.parity import Parity

__all__ = ["ExportReport", "NetworkReport", "Parity", "export_network", "export_onnx"]
