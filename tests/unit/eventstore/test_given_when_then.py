"""The given-when-then helper: how it states the rules of a decider, and how a broken rule fails."""

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


def test_broken_rule_fails_assertion() -> None:
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


def test_impure_decider_fails_assertion() -> None:
    counter = iter(range(10))
    impure = Decider(0, lambda _, __: [StringValue(value=f"a:{next(counter)}")], evolve, stream_of)
    with pytest.raises(AssertionError):
        given(impure).when(None)
