"""The work of `dvmsr-infer`: many pictures through one network."""
