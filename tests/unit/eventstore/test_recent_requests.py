"""Recent requests: those that were noted are never taken for new ones; few new ones are taken for known ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventstore import recent_requests
from eventstore.recent_requests import RecentRequests

requests = st.sets(st.tuples(st.text(), st.text(min_size=1)), max_size=200)


@given(added=requests, asked=requests)
def test_noted_request_is_never_new(added: set[tuple[str, str]], asked: set[tuple[str, str]]) -> None:
    known = RecentRequests()
    known.complete = True
    for actor, request_id in added:
        known.note_older(actor, request_id)
    assert not any(known.is_new(*request) for request in added)
    assert sum(not known.is_new(*request) for request in asked - added) <= 3


def test_nothing_is_new_before_all_requests_were_noted() -> None:
    assert not RecentRequests().is_new("alice", "r1")


def test_few_new_requests_are_taken_for_known_ones_however_many_were_noted() -> None:
    known = RecentRequests()
    known.complete = True
    many = 3 * recent_requests.FIRST_REQUESTS
    for number in range(many):
        known.note_older("alice", f"{number}")
    assert not any(known.is_new("alice", f"{number}") for number in range(many))
    assert sum(not known.is_new("bob", f"{number}") for number in range(10_000)) < 500
