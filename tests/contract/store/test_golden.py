"""Every event ever released stays readable: golden bytes decode, mean the same, and fold.

`golden/<log>/<Event>.json` holds samples: the stored bytes, in hex, and their meaning. Files are added for new events
and samples for new fields; existing ones never change.
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
"""Events that change no decider's state."""

VERSION = ("ModelCreated", "VersionRegistered")
PREREQUISITES = {
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
"""By event, the events whose samples come before it."""

BEGINNINGS = (v1.ExperimentCreated, v1.RunStarted, v1.LoggedModelCreated)
"""Events that begin a stream, and come before all others."""


def samples(file: Path) -> list[Message]:
    """Return the events of a file, as today's programs read them."""
    log, name = file.parent.name, f"rollforward.v1.{file.stem}"
    return [LOGS[log].decode(name, bytes.fromhex(sample["bytes"])) for sample in json.loads(file.read_text())]


def recorded(event: Message, position: int) -> RecordedEvent:
    """Return an event as recorded in a log, as an append of its own."""
    return RecordedEvent(stream_of(event), position, position, str(position), event, Metadata("Zoë"), position)


def stream_of(event: Message) -> str:
    """Return the stream of an event."""
    match event:
        case v1.PolicySet() | v1.PolicyRemoved():
            return POLICIES_STREAM
        case v1.LogEpochBegan():
            return EPOCH_STREAM
        case v1.ModelNameTaken():
            return model_stream(event.name)
        case _ if decider_of(event) is EXPERIMENTS:
            return EXPERIMENTS_STREAM
        case _ if decider_of(event) is LOGGED_MODELS:
            return logged_model_stream(event.model_id)  # type: ignore[attr-defined]
        case _:
            stream_of_event = decider_of(event).stream_of
            return stream_of_event(event) if stream_of_event else model_stream(event.model)  # type: ignore[attr-defined]


def decider_of(event: Message) -> Decider[Any]:
    """Return the decider of an event."""
    if isinstance(event, v1.PolicySet | v1.PolicyRemoved):
        return POLICIES
    if event.DESCRIPTOR.name.startswith("Experiment"):
        return EXPERIMENTS
    if event.DESCRIPTOR.name.startswith("LoggedModel"):
        return LOGGED_MODELS
    name = event.DESCRIPTOR.full_name
    if name in LOGS["webhooks"].names:
        return WEBHOOKS
    return MODELS if name in LOGS["registry"].names else PODS if name in LOGS["serving"].names else RUNS


@pytest.mark.parametrize("log", LOGS)
def test_every_event_type_has_golden_bytes(log: str) -> None:
    assert {f"rollforward.v1.{file.stem}" for file in FILES if file.parent.name == log} >= LOGS[log].names


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_golden_bytes_decode_and_encode_unchanged(file: Path) -> None:
    for sample, event in zip(json.loads(file.read_text()), samples(file), strict=True):
        assert MessageToDict(event, preserving_proto_field_name=True) == sample["event"]
        if event.DESCRIPTOR.name == file.stem:  # an event of today, not one that was upcast
            name, payload = LOGS[file.parent.name].encode(event)
            assert (name, payload.hex()) == (event.DESCRIPTOR.full_name, sample["bytes"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_samples_cover_every_field(file: Path) -> None:
    payloads = samples(file)
    fields = {field.name for event in payloads for field, _ in event.ListFields()}
    assert fields == set(payloads[0].DESCRIPTOR.fields_by_name)


# The event that begins an epoch is read by the kernel, not by a decider.
@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.stem != "LogEpochBegan"],
    ids=lambda file: f"{file.parent.name}-{file.stem}",
)
def test_event_changes_state(file: Path) -> None:
    for event in samples(file):
        decider = decider_of(event)
        before = decider.initial
        for position, earlier in enumerate(prerequisites_of(file), 1):
            before = decider.evolve(before, recorded(earlier, position))
        state = decider.evolve(before, recorded(event, 1000))
        assert (state == before) == isinstance(event, WITHOUT_EFFECT)


def prerequisites_of(file: Path) -> list[Message]:
    """Return the events without which an event changes nothing."""
    return [event for name in PREREQUISITES.get(file.stem, ()) for event in samples(file.with_name(f"{name}.json"))]


@pytest.mark.parametrize("log", LOGS)
def test_rows_do_not_depend_on_batches(log: str) -> None:
    payloads = [event for file in FILES if file.parent.name == log for event in samples(file)]
    payloads.sort(key=lambda event: not isinstance(event, BEGINNINGS))
    # Again, so that an event also meets the rows of an earlier event of its kind, in the same call or before.
    payloads += [event for event in payloads if isinstance(event, (v1.AliasMoved, v1.AliasRemoved))]
    events = [recorded(event, position) for position, event in enumerate(payloads, 1)]
    for projection in PROJECTIONS[log]:
        whole = rows_after(projection, [events])
        assert any(whole.values())
        assert rows_after(projection, [[event] for event in events]) == whole
        assert rows_after(projection, [events[at : at + 7] for at in range(0, len(events), 7)]) == whole


def rows_after(projection: Projection, calls: Sequence[Sequence[RecordedEvent]]) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of a projection, by table, after it applied these batches."""
    engine = sa.create_engine("sqlite://")
    with engine.begin() as rows:
        projection.tables.create_all(rows)
        for events in calls:
            projection.apply(rows, events)
        tables = projection.tables.sorted_tables
        rows_by_table = {
            table.name: [tuple(row) for row in rows.execute(sa.select(table).order_by(*table.primary_key.columns))]
            for table in tables
        }
    engine.dispose()
    return rows_by_table
