"""Optical flow against motions that are known, and what cannot be followed."""

import cv2
import numpy as np
import pytest
from bench.measures import pan
from skimage.data import coffee

from helpers.apps.optical_flow import flow_consistency, optical_flow, warp


def grays(**motion):
    frames, flows = pan(coffee(), 6, (120, 160), **motion)
    return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames], flows


@pytest.mark.parametrize("how", [{}, {"shift": (-4, 2)}, {"zoom": 0.02, "shift": (0, 0)}, {"turn": 1, "shift": (0, 0)}])
def test_known_motion_is_found_where_it_is_trusted(how):
    frames, flows = grays(**how)
    for before, now, flow in zip(frames[:-1], frames[1:], flows, strict=True):
        found, back = optical_flow(now, before), optical_flow(before, now)
        mask = flow_consistency(found, back) > 0
        assert mask.mean() > 0.75
        assert np.linalg.norm(found - flow, axis=2)[mask].mean() < 0.35


def test_the_films_motion_is_that_of_its_pixels():
    frames, flows = pan(coffee(), 3, (120, 160))
    carried = warp(frames[0].astype(np.float32), flows[0])
    assert np.abs(carried - frames[1])[5:-5, 5:-5].mean() < 3
    assert np.abs(frames[0].astype(float) - frames[1])[5:-5, 5:-5].mean() > 6


def test_warping_fetches_from_where_the_flow_points():
    maps = np.arange(30, dtype=np.float32).reshape(5, 6)
    flow = np.zeros((5, 6, 2), np.float32)
    assert (warp(maps, flow) == maps).all()
    flow[..., 0] = 1
    assert (warp(maps, flow)[:, :-1] == maps[:, 1:]).all() and (warp(maps, flow)[:, -1] == maps[:, -1]).all()
    flow[..., 0], flow[..., 1] = 0, 0.5
    np.testing.assert_allclose(warp(maps, flow)[:-1], (maps[1:] + maps[:-1]) / 2)
    assert warp(np.dstack([maps, maps]), flow).shape == (5, 6, 2)


def test_what_appears_from_behind_an_object_is_not_trusted():
    background = cv2.cvtColor(cv2.resize(coffee(), (160, 120)), cv2.COLOR_RGB2GRAY)
    thing = cv2.cvtColor(coffee()[100:140, 200:240], cv2.COLOR_RGB2GRAY)
    frames = []
    for left in (50, 58):
        frame = background.copy()
        frame[40:80, left : left + 40] = thing
        frames.append(frame)
    mask = flow_consistency(optical_flow(frames[1], frames[0]), optical_flow(frames[0], frames[1]))
    assert mask[44:76, 50:58].mean() < 0.35  # uncovered: it was behind the object
    assert mask[:30].mean() > 0.95 and mask[50:70, 68:88].mean() > 0.8


def test_flow_that_leaves_the_frame_is_not_trusted_and_the_smallest_frames_have_one():
    flow = np.full((40, 40, 2), 3, np.float32)
    mask = flow_consistency(flow, -flow)
    assert mask[:36, :36].all() and not mask[-3:].any() and not mask[:, -3:].any()
    tiny = np.zeros((1, 3), np.uint8)
    assert optical_flow(tiny, tiny).shape == (1, 3, 2)


def test_a_film_of_one_pixel_has_no_flow_to_trust():
    assert not flow_consistency(np.zeros((1, 1, 2), np.float32), np.zeros((1, 1, 2), np.float32)).any()
