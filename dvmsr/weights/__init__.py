"""Models by name: those that are bundled, and the paper's."""
