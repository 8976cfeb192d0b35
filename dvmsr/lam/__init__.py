"""Local attribution maps: which pixels a network looks at."""
