"""Helpers that keep the colorization notebooks short; see the README for the order to read them in."""
