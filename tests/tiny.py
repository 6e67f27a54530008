"""The smallest generator, for tests of what trains it."""

from torch import nn


class TinyGenerator(nn.Sequential):
    """A generator small enough to train in no time, with batch normalization as the real one."""

    def __init__(self):
        super().__init__(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3, padding=1), nn.Tanh())
