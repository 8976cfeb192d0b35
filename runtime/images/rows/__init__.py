"""Picture files by rows, by libvips."""
