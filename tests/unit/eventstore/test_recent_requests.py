"""Recent requests: no known request is taken for a new one, and few new ones for known ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventstore import recent_requests
from eventstore.recent_requests import RecentRequests

requests = st.sets(st.tuples(st.text(), st.text(min_size=1)), max_size=200)


@given(added=requests, queried=requests)
def test_known_request_is_never_new(added: set[tuple[str, str]], queried: set[tuple[str, str]]) -> None:
    known = RecentRequests()
    known.complete = True
    for actor, request_id in added:
        known.note_older(actor, request_id)
    assert not any(known.is_new(*request) for request in added)
    assert sum(not known.is_new(*request) for request in queried - added) <= 3


def test_no_request_is_new_before_index_is_complete() -> None:
    assert not RecentRequests().is_new("alice", "r1")


def test_rate_of_false_positives_is_bounded() -> None:
    known = RecentRequests()
    known.complete = True
    many = 3 * recent_requests.FIRST_REQUESTS
    for number in range(many):
        known.note_older("alice", f"{number}")
    assert not any(known.is_new("alice", f"{number}") for number in range(many))
    assert sum(not known.is_new("bob", f"{number}") for number in range(10_000)) < 500
