"""Figures and pages that tell how good results are."""
