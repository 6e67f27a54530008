"""What each bottleneck costs beside nine residual blocks: parameters, arithmetic, time, memory.

`python costs.py NAME SIZE` is one training step of one photo in a process of its own; it prints the peak memory in GB.
"""

import resource
import statistics
import subprocess
import sys
import time

import pandas as pd
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers.models.blocks import count_parameters
from helpers.models.generator import Generator

KINDS = {
    "residual": {"bottleneck": "residual", "res_blocks": 9},
    "residual, 4 blocks": {"bottleneck": "residual", "res_blocks": 4},
    "identity": {"bottleneck": "identity"},
    "attention": {"bottleneck": "attention"},
    "vit": {"bottleneck": "vit"},
    "identity, attention in decoder": {"bottleneck": "identity", "attention_at": 8},
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def made(name):
    """Return a generator with one of the bottlenecks, untrained."""
    return Generator(weights=None, **KINDS[name]).to(DEVICE, memory_format=torch.channels_last)


def step(generator, size, count):
    """Take a training step, all but the optimizer's, on photos of chance; return its seconds."""
    began = time.perf_counter()
    generator(torch.rand(count, 1, size, size, device=DEVICE)).square().mean().backward()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def beside(residual, generator, size, rounds=9, count=4):
    """Return the time of a step as a share of that of nine residual blocks: they take turns, medians are compared."""
    times = [[step(each, size, count) for each in (residual, generator)] for _ in range(rounds)][2:]
    theirs, ours = map(statistics.median, zip(*times, strict=True))
    return ours / theirs


def memory(name, size):
    """Return the peak memory of a step in GB, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, name, str(size)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def costs(names, sizes, large):
    """Return a table with a row for each bottleneck; sizes and large: in pixels, the last for the memory."""
    rows, residual = {}, made("residual")
    for name in names:
        generator = made(name)
        rows[name] = {"million parameters": count_parameters(generator) / 1e6}
        for size in sizes:
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # what it can see into
                step(generator, size, 1)
            rows[name][f"GFLOP, {size} px"] = counter.get_total_flops() / 1e9  # of a training step
            rows[name][f"time, {size} px"] = beside(residual, generator, size)
        rows[name][f"GB, {large} px"] = memory(name, large)
    return pd.DataFrame(rows).T


if __name__ == "__main__":
    step(made(sys.argv[1]), int(sys.argv[2]), 1)
    peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 1024 * resource.getrusage(resource.RUSAGE_SELF)[2]
    print(peak / 1e9)
