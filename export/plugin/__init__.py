"""The TensorRT plugin and the CUDA library, compiled once."""
