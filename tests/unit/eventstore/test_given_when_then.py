"""How the rules of a decider are stated, and what a rule that is broken looks like."""

from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from eventstore.decider import Decider
from eventstore.testing import given
from tests.unit.eventstore.accounts import (
    ACCOUNT,
    add,
    evolve,
    stream_of,
)


def test_given_when_then() -> None:
    stream = given(ACCOUNT, StringValue(value="a:5"), StringValue(value="a:2"))
    assert stream.state == 7
    stream.when(add(-7)).then(StringValue(value="a:-7"))
    stream.when(add(0)).then()
    assert stream.when(add(-8)).then_rejected("TOO_LITTLE").reason == "TOO_LITTLE"
    for wrong in (
        lambda: stream.when(add(-7)).then(),
        lambda: stream.when(add(-8)).then(),
        lambda: stream.when(add(-8)).then_rejected("OTHER"),
        lambda: stream.when(add(1)).then_rejected("TOO_LITTLE"),
    ):
        with pytest.raises(AssertionError):
            wrong()


def test_a_decider_that_decides_otherwise_the_second_time_is_found_out() -> None:
    counted = iter(range(10))
    impure = Decider(0, lambda _, __: [StringValue(value=f"a:{next(counted)}")], evolve, stream_of)
    with pytest.raises(AssertionError):
        given(impure).when(None)
