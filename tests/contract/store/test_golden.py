"""Every event ever released is readable for ever: golden bytes decode, mean the same, and fold.

`golden/<log>/<Event>.json` holds samples: the bytes that stand in some log, in hex, and what they say. Files are added
for new events and samples for new fields; what is there never changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from eventstore.decider import Decider
from eventstore.epochs import EPOCH_STREAM
from eventstore.event import Metadata, RecordedEvent
from eventstore.projections.generations import Projection
from rollforward import v1
from services.app import LOGS
from services.audit.projection import AuditProjection
from services.registry import POLICIES_STREAM, model_stream
from services.registry.deciders.models import DECIDER as MODELS
from services.registry.deciders.policies import POLICIES
from services.registry.projection.apply import RegistryProjection
from services.registry.projection.runs import RunsProjection
from services.serving.assignments import AssignmentsProjection
from services.serving.decider import DECIDER as PODS
from services.serving.projection import ServingProjection
from services.tracking import EXPERIMENTS_STREAM, logged_model_stream
from services.tracking.deciders.experiments import EXPERIMENTS
from services.tracking.deciders.logged_models import LOGGED_MODELS
from services.tracking.deciders.runs import RUNS
from services.tracking.projection.apply import TrackingProjection
from services.webhooks.decider import DECIDER as WEBHOOKS
from services.webhooks.projection import WebhooksProjection

GOLDEN = Path(__file__).with_name("golden")
FILES = sorted(GOLDEN.glob("*/*.json"))

PROJECTIONS: Mapping[str, list[Projection]] = {
    "registry": [RegistryProjection(), AssignmentsProjection(), AuditProjection("registry")],
    "tracking": [TrackingProjection(), RunsProjection(), AuditProjection("tracking")],
    "serving": [ServingProjection(), AuditProjection("serving")],
    "webhooks": [WebhooksProjection(), AuditProjection("webhooks")],
}


WITHOUT_EFFECT = (
    v1.AliasKept,
    v1.MetricsLogged,
    v1.VersionRefused,
    v1.AliasMoveRefused,
)
"""Events that change nothing that is decided on."""

VERSION = ("ModelCreated", "VersionRegistered")
BEFORE = {
    "ModelRestored": ("ModelCreated", "ModelDeleted"),
    "VersionDescribed": VERSION,
    "VersionTagsChanged": VERSION,
    "VersionStatusChanged": VERSION,
    "VersionDeleted": VERSION,
    "VersionRestored": (*VERSION, "VersionDeleted"),
    "AliasKept": (*VERSION, "AliasMoved"),
    "AliasRemoved": (*VERSION, "AliasMoved"),
    "AliasScheduleCancelled": (*VERSION, "AliasMoveScheduled"),
    "AliasScheduleRefused": (*VERSION, "AliasMoveScheduled"),
    "PolicyRemoved": ("PolicySet",),
    "ExperimentRenamed": ("ExperimentCreated",),
    "ExperimentTagsChanged": ("ExperimentCreated",),
    "ExperimentDeleted": ("ExperimentCreated",),
    "ExperimentRestored": ("ExperimentCreated", "ExperimentDeleted"),
    "RunRestored": ("RunDeleted",),
    "LoggedModelRestored": ("LoggedModelDeleted",),
}
"""By event, those of its log whose samples come before it."""

BEGINNINGS = (v1.ExperimentCreated, v1.RunStarted, v1.LoggedModelCreated)
"""What comes before all else about what it is of."""


def samples(file: Path) -> list[Message]:
    """The events of a file, as today's programs read them."""
    log, name = file.parent.name, f"rollforward.v1.{file.stem}"
    return [LOGS[log].decode(name, bytes.fromhex(sample["bytes"])) for sample in json.loads(file.read_text())]


def recorded(fact: Message, position: int) -> RecordedEvent:
    """An event as a log gives it, in an append of its own."""
    return RecordedEvent(stream_of(fact), position, position, str(position), fact, Metadata("Zoë"), position)


def stream_of(fact: Message) -> str:
    """The stream that an event is of."""
    match fact:
        case v1.PolicySet() | v1.PolicyRemoved():
            return POLICIES_STREAM
        case v1.LogEpochBegan():
            return EPOCH_STREAM
        case v1.ModelNameTaken():
            return model_stream(fact.name)
        case _ if decider_of(fact) is EXPERIMENTS:
            return EXPERIMENTS_STREAM
        case _ if decider_of(fact) is LOGGED_MODELS:
            return logged_model_stream(fact.model_id)  # type: ignore[attr-defined]
        case _:
            by_fact = decider_of(fact).stream_of
            return by_fact(fact) if by_fact else model_stream(fact.model)  # type: ignore[attr-defined]


def decider_of(fact: Message) -> Decider[Any]:
    """Whose rules an event is of."""
    if isinstance(fact, v1.PolicySet | v1.PolicyRemoved):
        return POLICIES
    if fact.DESCRIPTOR.name.startswith("Experiment"):
        return EXPERIMENTS
    if fact.DESCRIPTOR.name.startswith("LoggedModel"):
        return LOGGED_MODELS
    name = fact.DESCRIPTOR.full_name
    if name in LOGS["webhooks"].names:
        return WEBHOOKS
    return MODELS if name in LOGS["registry"].names else PODS if name in LOGS["serving"].names else RUNS


@pytest.mark.parametrize("log", LOGS)
def test_every_event_type_has_its_golden_bytes(log: str) -> None:
    assert {f"rollforward.v1.{file.stem}" for file in FILES if file.parent.name == log} >= LOGS[log].names


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_bytes_mean_what_they_meant_and_are_written_alike(file: Path) -> None:
    for sample, event in zip(json.loads(file.read_text()), samples(file), strict=True):
        assert MessageToDict(event, preserving_proto_field_name=True) == sample["event"]
        if event.DESCRIPTOR.name == file.stem:  # an event of today, not one that was upcast
            name, payload = LOGS[file.parent.name].encode(event)
            assert (name, payload.hex()) == (event.DESCRIPTOR.full_name, sample["bytes"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_some_sample_has_every_field(file: Path) -> None:
    payloads = samples(file)
    fields = {field.name for fact in payloads for field, _ in fact.ListFields()}
    assert fields == set(payloads[0].DESCRIPTOR.fields_by_name)


# What begins an epoch is read by the kernel, not by a decider.
@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.stem != "LogEpochBegan"],
    ids=lambda file: f"{file.parent.name}-{file.stem}",
)
def test_events_fold(file: Path) -> None:
    for fact in samples(file):
        decider = decider_of(fact)
        before = decider.initial
        for position, earlier in enumerate(facts_before(file), 1):
            before = decider.evolve(before, recorded(earlier, position))
        state = decider.evolve(before, recorded(fact, 1000))
        assert (state == before) == isinstance(fact, WITHOUT_EFFECT)


def facts_before(file: Path) -> list[Message]:
    """What must have happened for an event to change anything."""
    return [fact for name in BEFORE.get(file.stem, ()) for fact in samples(file.with_name(f"{name}.json"))]


@pytest.mark.parametrize("log", LOGS)
def test_events_become_rows_however_they_are_cut(log: str) -> None:
    payloads = [fact for file in FILES if file.parent.name == log for fact in samples(file)]
    payloads.sort(key=lambda fact: not isinstance(fact, BEGINNINGS))
    # Once more, so that an event also finds what one of its kind has written, in its own call or in one before.
    payloads += [fact for fact in payloads if isinstance(fact, (v1.AliasMoved, v1.AliasRemoved))]
    happened = [recorded(fact, position) for position, fact in enumerate(payloads, 1)]
    for projection in PROJECTIONS[log]:
        whole = rows_after(projection, [happened])
        assert any(whole.values())
        assert rows_after(projection, [[event] for event in happened]) == whole
        assert rows_after(projection, [happened[at : at + 7] for at in range(0, len(happened), 7)]) == whole


def rows_after(projection: Projection, calls: Sequence[Sequence[RecordedEvent]]) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a projection, by table, after so many calls."""
    engine = sa.create_engine("sqlite://")
    with engine.begin() as rows:
        projection.tables.create_all(rows)
        for events in calls:
            projection.apply(rows, events)
        tables = projection.tables.sorted_tables
        found = {
            table.name: [tuple(row) for row in rows.execute(sa.select(table).order_by(*table.primary_key.columns))]
            for table in tables
        }
    engine.dispose()
    return found
