"""A trained generator that also takes color hints."""

from torch import Tensor, nn

from helpers.models.generator import arguments_of
from helpers.models.likely_colors import count_colors

HINT_PARTS = ("hint_attention.", "palette")  # of a generator's state dict


def with_hints(generator: nn.Module, photos: Tensor | None = None) -> nn.Module:
    """Return a trained generator that also takes hints; without hints its colors are the same, and stay the same.

    The trained weights are frozen, and the new hint layers are to be learned. photos: uint8 (N, 3, H, W), to count
    which colors are likely. Raises ValueError for a network that is not built like a `Generator` with hints=True.
    """
    known = {key: value for key, value in generator.state_dict().items() if not key.startswith(HINT_PARTS)}
    try:
        again = type(generator)(**arguments_of(generator) | {"weights": None, "hints": True})
        if other := [key for key in again.load_state_dict(known, strict=False)[0] if not key.startswith(HINT_PARTS)]:
            raise TypeError(f"it has no {', '.join(other[:3])}")
    except (RuntimeError, TypeError) as error:
        name = type(generator).__name__
        raise ValueError(f"{name} cannot take hints, as a Generator and its subclasses can: {error}") from error
    if photos is not None:
        again.palette.copy_(count_colors(again, photos))
    for key, parameter in again.named_parameters():
        parameter.requires_grad_(key.startswith(HINT_PARTS))
    again.trained_size = getattr(generator, "trained_size", None)
    return again.train(generator.training)
