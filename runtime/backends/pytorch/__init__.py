"""Networks in PyTorch: the only place of the runtime that imports it."""
