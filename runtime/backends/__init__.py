"""What runs a network: ONNX Runtime, PyTorch, TensorRT; all behind `base`."""
