"""What the model asks about a film: places that stay in sight for long, found in one pass."""

from dataclasses import replace

import cv2
import numpy as np
from tqdm.auto import tqdm

from helpers.apps.film_reader import Film
from helpers.apps.optical_flow import both_ways, follow_point, warp
from helpers.inference.colorizer import Colorizer
from helpers.inference.suggestions import Question, questions, ringed
from helpers.inference.user_hints import Hint

SIDE = 160  # pixels on the shorter side of the frames that are looked at
CUT = 0.5  # mean difference from the last frame, moved along the flow, from which a shot begins; in its contrasts
REST = 8  # frames between two times of asking, at least


class Place:
    """A question about a frame and its time, where its place is now, and how many whole frames an answer decides."""

    def __init__(self, question: Question, frame: np.ndarray, at: float):
        self.question, self.frame, self.at = question, frame, at
        self.now, self.worth = (question.x, question.y), 0.0

    def asked(self, film: Film, frames: int) -> Question:
        """Return the question in the film's own pixels and seconds; gain: share of all its frames."""
        share = film.height / self.frame.shape[0], film.width / self.frame.shape[1]
        x, y = self.question.x * share[1], self.question.y * share[0]
        return replace(self.question, x=x, y=y, gain=self.worth / frames, at=self.at)


def follow(places: list[Place], here: np.ndarray, there: np.ndarray) -> list[Place]:
    """Move places along the flow to the next frame, gray (h, w) uint8; return those that are still in sight."""
    flow, back = both_ways(here, there)
    if np.abs(warp(there.astype(np.float32), flow) - here).mean() > CUT * here.std():
        return []
    for place in places:
        place.now = follow_point(*place.now, flow, back)
    return [place for place in places if place.now]


def film_questions(film: Film, colorizer: Colorizer, count: int = 5) -> tuple[list[Question], list[np.ndarray]]:
    """Return at most `count` questions about a film, the best first, and a picture of each one's frame with its ring.

    The first frame of a shot is asked about, and a later one when half of what was asked about is out of sight. Places
    are followed; those that decide most over all frames are kept, so memory does not grow with the film. gain: share of
    the whole film. Raises ValueError if the generator takes no hints.
    """
    best, alive, last, wanted, asked_at, seen = [], [], None, 0.0, -REST, 0
    frames = tqdm(film.frames(SIDE), "questions", film.count or None, unit="frame")
    for seen, (time, rgb) in enumerate(frames):
        gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        lost, alive = alive, follow(alive, last, gray) if alive else []
        lost = [place for place in lost if place not in alive]
        best = sorted(best + lost, key=lambda place: -place.worth)[:count]
        if seen >= asked_at + REST and sum(place.question.gain for place in alive) <= wanted / 2:
            given = [Hint(*place.now, place.question.colors[0]) for place in alive]
            alive += [Place(one, rgb, float(time * film.time_base)) for one in questions(colorizer, rgb, count, given)]
            wanted, asked_at = sum(place.question.gain for place in alive), seen
        for place in alive:
            place.worth += place.question.gain
        last = gray
    best = sorted(best + alive, key=lambda place: -place.worth)[:count]
    pictures = [ringed(each.frame, [each.question], number) for number, each in enumerate(best, 1)]
    return [each.asked(film, seen + 1) for each in best], pictures
