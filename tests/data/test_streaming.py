"""Bounded memory: memory-mapped sets, and a preparation that does not hold all photos."""

import time
from dataclasses import replace

import pandas as pd
import torch

from helpers.data import dataset
from helpers.data.batches import Batches


def test_memory_mapped_photos_make_the_same_batches(sample_photos):
    def rgb(photos):
        batches = Batches(photos, 5, augment=[lambda rgb: rgb.flip(-1)], seed=3)
        return [batch.rgb for _ in range(2) for batch in batches]

    mapped = replace(sample_photos, memory_gb=0.0).load("train", None)
    assert mapped.untyped_storage().filename and Batches(mapped, 5).photos is mapped
    assert all(torch.equal(a, b) for a, b in zip(rgb(sample_photos.load("train", None)), rgb(mapped), strict=True))
    assert torch.equal(replace(sample_photos, memory_gb=0.0).load("train", None), mapped)  # from the file of before


def test_a_second_preparation_finds_the_first(cfg):
    first = dataset.prepare(cfg)
    started = time.perf_counter()
    again = dataset.prepare(cfg)
    assert time.perf_counter() - started < 2
    pd.testing.assert_frame_equal(first.manifest, again.manifest)
