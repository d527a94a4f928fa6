"""Requests that were seen are never taken for new ones; few new ones are taken for seen ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventstore.projections import request_filter
from eventstore.projections.request_filter import SeenRequests

requests = st.sets(st.tuples(st.text(), st.text(min_size=1)), max_size=200)


@given(added=requests, asked=requests)
def test_what_was_added_is_never_new(added: set[tuple[str, str]], asked: set[tuple[str, str]]) -> None:
    known = SeenRequests()
    known.whole = True
    for actor, request_id in added:
        known.add(actor, request_id)
    assert not any(known.is_new(*request) for request in added)
    assert sum(not known.is_new(*request) for request in asked - added) <= 3


def test_nothing_is_new_to_a_set_that_is_not_whole() -> None:
    assert not SeenRequests().is_new("alice", "r1")


def test_few_new_requests_are_taken_for_seen_ones_however_many_were_added() -> None:
    known = SeenRequests()
    known.whole = True
    many = 3 * request_filter.FIRST_REQUESTS
    for number in range(many):
        known.add("alice", f"{number}")
    assert not any(known.is_new("alice", f"{number}") for number in range(many))
    assert sum(not known.is_new("bob", f"{number}") for number in range(10_000)) < 500
