"""Losses, the training step, and the trainer of all phases."""
