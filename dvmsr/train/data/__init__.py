"""Photographs and the patches that are cut from them."""
