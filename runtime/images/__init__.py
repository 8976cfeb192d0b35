"""Picture files: read, held and written without loss."""
