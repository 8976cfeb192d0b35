"""Whether two networks compute the same."""
