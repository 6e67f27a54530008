"""Flow against motions that are known; colors that follow it without flicker; hints that travel along it."""

import cv2
import films
import numpy as np
import pytest
from bench.measures import color_change, pan, warping_error
from skimage.data import coffee

from helpers.apps.optical_flow import flow_consistency, optical_flow, propagate_hints, steady, track, warp
from helpers.inference.user_hints import Hint


@pytest.mark.parametrize("how", [{}, {"shift": (-4, 2)}, {"zoom": 0.02, "shift": (0, 0)}, {"turn": 1, "shift": (0, 0)}])
def test_known_motion_is_found_where_it_is_consistent(how):
    frames, flows = pan(coffee(), 4, (120, 160), **how)
    frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    for before, now, flow in zip(frames[:-1], frames[1:], flows, strict=True):
        found, back = optical_flow(now, before), optical_flow(before, now)
        mask = flow_consistency(found, back) > 0
        assert mask.mean() > 0.75 and np.linalg.norm(found - flow, axis=2)[mask].mean() < 0.35


def test_warping_fetches_from_where_the_flow_points():
    maps, flow = np.arange(30, dtype=np.float32).reshape(5, 6), np.zeros((5, 6, 2), np.float32)
    assert (warp(maps, flow) == maps).all()
    flow[..., 0] = 1
    assert (warp(maps, flow)[:, :-1] == maps[:, 1:]).all() and (warp(maps, flow)[:, -1] == maps[:, -1]).all()
    flow[..., 0], flow[..., 1] = 0, 0.5
    np.testing.assert_allclose(warp(maps, flow)[:-1], (maps[1:] + maps[:-1]) / 2)
    assert warp(np.dstack([maps, maps]), flow).shape == (5, 6, 2)


def test_what_was_hidden_and_what_comes_from_outside_is_not_consistent():
    scenes = [cv2.cvtColor(cv2.resize(coffee(), (160, 120)), cv2.COLOR_RGB2GRAY) for _ in range(2)]
    for scene, left in zip(scenes, (50, 58), strict=True):
        scene[40:80, left : left + 40] = cv2.cvtColor(coffee()[100:140, 200:240], cv2.COLOR_RGB2GRAY)
    mask = flow_consistency(optical_flow(scenes[1], scenes[0]), optical_flow(scenes[0], scenes[1]))
    assert mask[44:76, 50:58].mean() < 0.35  # uncovered: it was behind the object
    assert mask[:30].mean() > 0.95 and mask[50:70, 68:88].mean() > 0.8
    flow = np.full((40, 40, 2), 3, np.float32)
    mask = flow_consistency(flow, -flow)
    assert mask[:36, :36].all() and not mask[-3:].any() and not mask[:, -3:].any()


def test_the_smallest_frames_have_a_flow():
    assert optical_flow(*2 * [np.zeros((1, 3), np.uint8)]).shape == (1, 3, 2)
    assert not flow_consistency(*2 * [np.zeros((1, 1, 2), np.float32)]).any()


def flickering(count=16):
    """A camera that moves over a photo: gray frames, its true colors, these with noise of their own, and the motion."""
    frames, flows = pan(coffee(), count, (90, 120))
    noise = np.random.default_rng(0).normal(0, 0.08, (count, 1, 1, 2)).astype(np.float32)
    truth = [films.ab_of(frame) for frame in frames]
    grays = [frame.mean(2).astype(np.uint8) for frame in frames]
    return grays, truth, [ab + change for ab, change in zip(truth, noise, strict=True)], flows


def test_steadied_colors_flicker_less_keep_their_strength_and_are_nearer_to_the_truth():
    grays, truth, colors, flows = flickering()
    known = [np.ones(gray.shape, np.float32) for gray in grays[1:]]
    ways = [colors, *(steady(grays, colors, backward=both)[0] for both in (False, True))]
    errors = [warping_error(made, flows, known) for made in ways]
    off = [np.abs(np.subtract(made, truth)).mean() for made in ways]
    assert errors[0] > 2 * errors[1] > 2 * errors[2] and off[0] > off[1] > off[2]
    changes = [abs(color_change(made) - color_change(truth)) for made in ways]
    assert changes[2] < changes[0]
    strength = [np.linalg.norm(made, axis=3).mean() for made in (truth, *ways)]
    assert min(strength[2:]) > 0.95 * strength[0]


def test_nothing_is_carried_over_a_cut_and_parts_follow_each_other_as_one():
    grays, _, colors, _ = flickering(12)
    both, alone = steady(grays, colors, cuts=[0, 5])[0], steady(grays[5:], colors[5:])[0]
    np.testing.assert_array_equal(both[5:], alone)
    whole, last = steady(grays, colors, backward=False)
    first, state = steady(grays[:7], colors[:7], backward=False)
    second, end = steady(grays[7:], colors[7:], cuts=[-7], before=state, backward=False)
    np.testing.assert_array_equal([*first, *second], whole)
    assert all((end[key] == last[key]).all() for key in ("gray", "ab"))
    np.testing.assert_array_equal(steady(grays, colors, weight=0.0)[0], colors)


def test_colors_do_not_jump_where_a_chunk_ends():
    grays, _, colors, flows = flickering(40)
    chunks, state = [], None
    for first in range(0, 40, 16):
        some, more = slice(first, first + 32), max(0, min(16, 24 - first))
        made, state = steady(grays[some], colors[some], [-first], state, ahead=more)
        chunks += made
    whole, last = steady(grays, colors)
    assert len(chunks) == 40 and (state["ab"] == last["ab"]).all()
    assert np.abs(np.subtract(chunks, whole)).max() < 0.03  # flicker is 0.08
    known = [np.ones(grays[0].shape, np.float32)]
    changes = [warping_error(chunks[i : i + 2], [flows[i]], known) for i in range(39)]
    assert max(changes[15], changes[31]) < 3 * np.median(changes)


def test_hints_travel_with_what_they_are_on_both_ways_and_end_at_the_cut():
    frames, flows = pan(coffee(), 12, (90, 120), shift=(-3, 1))
    grays = [frame.mean(2).astype(np.uint8) for frame in frames]
    traveling = propagate_hints([*grays, *grays[::-1]], {5: [Hint(60.0, 40.0, "red")]}, [0, 12])
    assert sorted(number for number, some in traveling.items() if some) == list(range(12))
    x, y = 60.0, 40.0
    for i in range(5, 0, -1):
        move = flows[i - 1][round(y), round(x)]
        x, y = x + move[0], y + move[1]
        assert np.hypot(traveling[i - 1][0].x - x, traveling[i - 1][0].y - y) < 2.5
    assert traveling[11][0].x - traveling[0][0].x > 25  # the camera moved to the left
    assert track([Hint(119.0, 40.0, "red")], grays[0], grays[3]) == []  # it has left the frame
