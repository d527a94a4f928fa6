"""Points put in order, against Python's own sort."""

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
    """What points at these places are in order; their values say where they stood."""
    steps, times, numbers = (np.array([place[at] for place in places], np.int64) for at in range(3))
    found = Ordered(Points(steps, times, np.arange(len(places), dtype=np.float64)), numbers).sorted()
    assert [places[int(at)] for at in found.points.values] == [found.place(at) for at in range(len(places))]
    return [found.place(at) for at in range(len(places))]


@given(st.lists(st.tuples(STEPS, st.integers(-2, 2)), max_size=40), st.randoms(use_true_random=False))
def test_points_are_in_the_order_of_step_time_and_arrival(pairs: list[tuple[int, int]], luck: random.Random) -> None:
    places = [(step, time, number) for number, (step, time) in enumerate(pairs)]
    assert ordered(places) == sorted(places)
    luck.shuffle(places)
    assert ordered(places) == sorted(places)


@given(st.lists(STEPS, unique=True, max_size=40))
def test_points_whose_steps_differ_are_in_the_order_of_steps(steps: list[int]) -> None:
    places = [(step, -at, at) for at, step in enumerate(steps)]
    assert ordered(places) == sorted(places)


def test_many_points_that_stand_in_the_same_step_are_in_the_order_of_arrival() -> None:
    luck = np.random.default_rng(2)
    places = [(int(step), 7, number) for number, step in enumerate(luck.integers(0, 500, 20_000))]
    assert ordered(places) == sorted(places)
