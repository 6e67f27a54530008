"""Checking an exercise: the answer of a student beside a reference."""

from typing import Any

import torch


def check(answer: Any, reference: Any, tolerance: float = 1e-4) -> str:
    """Return "right", or how a number or tensor differs from a reference; None is an exercise still to do."""
    if answer is None:
        return "still to do: it returns None"
    ours, theirs = (torch.as_tensor(value, dtype=torch.float64) for value in (answer, reference))
    if ours.shape != theirs.shape:
        return f"not yet: its shape is {tuple(ours.shape)}, and should be {tuple(theirs.shape)}"
    off = (ours - theirs).abs().max().item()
    return "right" if off <= tolerance else f"not yet: it is off by up to {off:.3g}"
