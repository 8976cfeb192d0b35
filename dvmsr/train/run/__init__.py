"""A run's folder: its state, log and pictures."""
