"""Colorizing photos of any kind at their own size."""
