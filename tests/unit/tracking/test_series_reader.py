"""Ordering of points, compared with Python's sort."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.series.columns import Points
from services.tracking.queries.series_reader import Ordered

LOWEST, HIGHEST = -(2**63), 2**63 - 1
STEPS = st.one_of(st.integers(-3, 3), st.integers(LOWEST, HIGHEST), st.sampled_from([LOWEST, HIGHEST]))


def ordered(places: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return the places in the order of the reader; the points' values are their original indexes."""
    steps, times, numbers = (np.array([place[at] for place in places], np.int64) for at in range(3))
    reader = Ordered(Points(steps, times, np.arange(len(places), dtype=np.float64)), numbers).sorted()
    assert [places[int(at)] for at in reader.points.values] == [reader.place(at) for at in range(len(places))]
    return [reader.place(at) for at in range(len(places))]


@given(st.lists(st.tuples(STEPS, st.integers(-2, 2)), max_size=40), st.randoms(use_true_random=False))
def test_points_are_ordered_by_step_time_and_arrival(pairs: list[tuple[int, int]], rng: random.Random) -> None:
    places = [(step, time, number) for number, (step, time) in enumerate(pairs)]
    assert ordered(places) == sorted(places)
    rng.shuffle(places)
    assert ordered(places) == sorted(places)


@given(st.lists(STEPS, unique=True, max_size=40))
def test_points_with_unique_steps_are_ordered_by_step(steps: list[int]) -> None:
    places = [(step, -at, at) for at, step in enumerate(steps)]
    assert ordered(places) == sorted(places)


def test_many_points_of_same_step_are_ordered_by_arrival() -> None:
    rng = np.random.default_rng(2)
    places = [(int(step), 7, number) for number, step in enumerate(rng.integers(0, 500, 20_000))]
    assert ordered(places) == sorted(places)
