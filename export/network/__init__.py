"""Anybody's Mamba network in PyTorch -> a verified ONNX file with dvmsr's operators."""
