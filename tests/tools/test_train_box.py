"""The parts of the box's recipe that are sums: who is drawn, who teaches, and what lies beyond."""

import copy

import numpy as np
import torch
from torch import nn
from train_box import BEYOND, SIZE, Phase, beyond, chances, mean_of


def test_every_photo_can_be_drawn_and_favored_sources_more_often():
    sources = np.array(["landscapes"] * 100 + ["food"] * 400)
    chance = chances(sources, Phase(1, weights={"landscapes": 3}))
    assert np.isclose(chance.sum(), 1) and chance.min() > 0
    assert np.isclose(chance[:100].sum(), 0.6)  # 3 * sqrt(100) to sqrt(400)
    assert chances(sources, Phase(1, others=0))[100:].max() == 0


def test_a_mirrored_teacher_counts_by_its_weight():
    left, L = nn.Conv2d(1, 2, (1, 3), padding=(0, 1), bias=False), torch.rand(2, 1, SIZE, SIZE)
    with torch.no_grad():
        left.weight.copy_(torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 1, 3).expand(2, 1, 1, 3))  # moves to the right
    mean = mean_of({"one": left}, (("one", 1, SIZE, False), ("one", 3, SIZE, True)), L)
    assert torch.allclose(mean[:, :1, :, 1:-1], 0.25 * L[..., :-2] + 0.75 * L[..., 2:], atol=1e-6)


def test_beyond_goes_on_in_the_same_direction():
    here = nn.BatchNorm2d(2)
    there = copy.deepcopy(here)
    nn.init.constant_(there.weight, 2.0)
    there.running_var.fill_(0.1)
    found = beyond(here, there)
    assert torch.allclose(found.weight, torch.full((2,), 1 + BEYOND)) and there.weight[0] == 2
    assert found.running_var.min() > 0  # the line leads to -0.35
