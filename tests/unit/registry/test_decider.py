"""The model decider keeps its stream consistent, whatever the commands."""

from __future__ import annotations

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from eventstore.event import Metadata, RecordedEvent
from eventstore.testing import Given
from rollforward import v1
from services.registry.deciders.models import DECIDER, Register, decide
from services.registry.deciders.state import State, evolve
from tests.unit.registry.streams import D1, D2, D3, move, remove


def test_other_message_is_rejected() -> None:
    with pytest.raises(TypeError):
        decide(v1.GetModelRequest(name="fraud"), State())


commands = st.one_of(
    st.builds(v1.CreateModelRequest, name=st.sampled_from(["fraud", "", "a/b"])),
    st.builds(v1.SetRegistrationGateRequest, model=st.just("fraud"), expression=st.sampled_from(["", "true"])),
    st.builds(
        Register,
        st.builds(v1.RegisterVersionRequest, model=st.just("fraud")),
        st.sampled_from([D1, D2, D3, "x"]),
        st.sampled_from([None, v1.GateEvidence(expression="true", passed=True), v1.GateEvidence(expression="true")]),
    ),
    st.builds(
        move,
        st.integers(0, 4),
        st.sampled_from(["champion", "candidate", "v1"]),
        st.one_of(st.none(), st.integers(0, 12)),
    ),
    st.builds(remove, st.one_of(st.none(), st.integers(0, 12))),
    st.builds(v1.DeleteVersionRequest, model=st.just("fraud"), version=st.integers(0, 3)),
    st.builds(v1.RestoreVersionRequest, model=st.just("fraud"), version=st.integers(0, 3)),
    st.builds(v1.DeleteModelRequest, model=st.just("fraud")),
    st.builds(v1.RestoreModelRequest, model=st.just("fraud")),
)


@for_all(st.lists(commands, max_size=25))
def test_any_commands_leave_stream_consistent(requests: list[object]) -> None:
    """Deciding is pure, version numbers are dense and never reused, and every alias names an existing version."""
    state, position = State(), 0
    numbers: list[int] = []
    current: dict[str, int] = {}
    for command in requests:
        for payload in Given(DECIDER, state).when(command).events:
            position += 1
            state = evolve(
                state, RecordedEvent("model/fraud", position, position, "", payload, Metadata("a"), position)
            )
            if isinstance(payload, v1.VersionRegistered):
                numbers.append(payload.version)
            if isinstance(payload, v1.AliasMoved):
                assert payload.to_version in numbers
                assert payload.from_version == current.get(payload.alias, 0) != payload.to_version
                current[payload.alias] = payload.to_version
            if isinstance(payload, v1.AliasRemoved):
                assert payload.from_version == current.pop(payload.alias)
    assert numbers == list(range(1, len(numbers) + 1))
    assert {name: alias.version for name, alias in state.aliases.items() if alias.version} == current


def test_unregistered_version_has_no_digest() -> None:
    """An event that no command writes may name one; later commands are still decided."""
    moved = v1.AliasMoved(model="fraud", alias="champion", to_version=999)
    state = evolve(State(), RecordedEvent("model/fraud", 1, 1, "", moved, Metadata("a"), 1))
    assert state.alias("champion").version == 999
    assert state.digest(999) == ""
