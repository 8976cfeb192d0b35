"""Bindings to the compiled kernels, by ctypes alone: nothing here imports torch."""
