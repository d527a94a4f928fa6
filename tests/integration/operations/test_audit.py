"""The audit service on a running system: the events of every log, filtered, listed and exported."""

from __future__ import annotations

import struct
import time
from itertools import count
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import InvalidRequest, NotFound
from tests.integration.up import ACTOR, SECONDS, Up, new_id


def events(system: Up, page_size: int = 0, **conditions: object) -> list[v1.RecordedEvent]:
    """Return all events that match, read page by page."""
    matches: list[v1.RecordedEvent] = []
    headers = (("rollforward-min-position", ",".join(f"{log}={head}" for log, head in system.heads().items())),)
    token = ""
    while True:
        request = v1.ListEventsRequest(page_size=page_size, page_token=token, **conditions)  # type: ignore[arg-type]
        page = system.audit.ListEvents(request, metadata=headers, timeout=SECONDS)
        assert len(page.events) <= (page_size or 100)
        matches += page.events
        token = page.next_page_token
        if not token:
            return matches


def test_event_has_all_fields(system: Up, model: str) -> None:
    headers = (*ACTOR, ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
    request_id = new_id()
    request = v1.MoveAliasRequest(model=model, alias="champion", version=2, reason="é\nbetter", request_id=request_id)
    moved = system.registry.MoveAlias(request, metadata=headers, timeout=SECONDS)
    (event,) = events(system, request_id=request_id)
    change = system.registry.ListAliasHistory(v1.ListAliasHistoryRequest(model=model), timeout=SECONDS).changes[0]
    payload = v1.AliasMoved()
    assert event.data.Unpack(payload)
    assert (payload.model, payload.from_version, payload.to_version, payload.to_digest) == (
        model,
        0,
        2,
        moved.alias.digest,
    )
    event.ClearField("data")
    assert event == v1.RecordedEvent(
        log="registry",
        position=moved.position,
        event_id=change.event_id,
        stream=f"model/{model}",
        type="rollforward.v1.AliasMoved",
        time=moved.alias.moved_at,
        actor="Zoë",
        reason="é\nbetter",
        request_id=request_id,
        correlation_id="together",
        traceparent=headers[-1][1],
    )


def test_metric_points_are_returned_as_stored(system: Up) -> None:
    run_id, request_id = system.new_run(), new_id()
    columns = [struct.pack("<3q", 1, 2, 3), struct.pack("<3q", 4, 5, 6), struct.pack("<3d", 0.5, float("nan"), 7.0)]
    series = v1.Series(key="loss", steps=columns[0], timestamps=columns[1], values=columns[2])
    batch = v1.LogBatchRequest(run_id=run_id, series=[series], request_id=request_id)
    system.tracking.LogBatch(batch, metadata=ACTOR, timeout=SECONDS)
    (listed,) = events(system, request_id=request_id)
    request = v1.ExportEventsRequest(filter=v1.ListEventsRequest(request_id=request_id))
    (exported,) = [event for part in system.audit.ExportEvents(request, timeout=SECONDS) for event in part.events]
    assert listed == exported
    payload = v1.MetricsLogged()
    assert listed.data.Unpack(payload)
    assert payload == v1.MetricsLogged(run_id=run_id, series=[series])


def test_filters_select_events(system: Up) -> None:
    actor = f"actor {new_id()}"
    headers = (("rollforward-actor", actor), ("rollforward-correlation-id", new_id()))
    model, run_id = system.new_model(2), system.new_run()
    for version in (1, 2):
        system.move(model, version, headers=headers)
    tags = v1.LogBatchRequest(run_id=run_id, tags={"a": "b"})
    system.tracking.LogBatch(tags, metadata=headers, timeout=SECONDS)
    by_actor = events(system, actor=actor)
    assert [event.type.rpartition(".")[2] for event in by_actor] == ["RunLogged", "AliasMoved", "AliasMoved"]
    assert events(system, correlation_id=headers[1][1]) == by_actor
    assert events(system, actor=actor, log="registry") == by_actor[1:]
    assert events(system, actor=actor, type="RunLogged") == by_actor[:1]
    assert events(system, actor=actor, type="rollforward.v1.AliasMoved") == by_actor[1:]
    assert events(system, actor=actor, stream=f"model/{model}") == by_actor[1:]
    assert events(system, actor=actor, since=by_actor[1].time) == by_actor[:2]
    assert events(system, actor=actor, until=by_actor[1].time) == by_actor[2:]
    assert events(system, actor=actor, log="serving") == []
    assert len(events(system, stream=f"model/{model}")) == 5
    assert events(system, actor=actor, page_size=1) == by_actor


def test_every_page_size_lists_all_events_once_newest_first(system: Up, model: str) -> None:
    system.move(model, 1)
    all_events = events(system, 1000, until=Timestamp(seconds=int(time.time()) + 1))
    assert {log: len([event for event in all_events if event.log == log]) for log in system.heads()} == system.heads()
    order = [(event.time.ToNanoseconds(), event.log, event.position) for event in all_events]
    assert order == sorted(order, reverse=True)
    assert events(system, 7) == all_events


def types(recorded: list[v1.RecordedEvent]) -> list[str]:
    """Return the events' types, without their package."""
    return [event.type.rpartition(".")[2] for event in recorded]


def test_each_name_of_model_finds_all_its_events(system: Up, model: str) -> None:
    system.move(model, 1)
    new_name = f"renamed-{new_id()}"
    system.registry.RenameModel(v1.RenameModelRequest(model=model, new_name=new_name), timeout=SECONDS)
    system.move(new_name, 2)
    begin = v1.StartPodRequest(
        pod_id=new_id(), host="here", endpoint="here:1", targets=[v1.Target(model=new_name, alias="champion")]
    )
    system.serving.StartPod(begin, timeout=SECONDS)
    applied = v1.Assignment(target=begin.targets[0], version=2, revision=system.heads()["registry"])
    acknowledge = v1.AcknowledgeAssignmentRequest(pod_id=begin.pod_id, assignment=applied)
    system.serving.AcknowledgeAssignment(acknowledge, timeout=SECONDS)
    model_events = events(system, model=new_name)
    assert types(model_events) == [
        "AssignmentApplied", "AliasMoved", "ModelNameTaken", "ModelRenamed", "AliasMoved",
        "VersionRegistered", "VersionRegistered", "ModelCreated",
    ]  # fmt: skip
    assert events(system, model=model) == model_events
    assert types(events(system, model=model, log="serving")) == ["AssignmentApplied"]
    unknown = system.refused(system.audit.ListEvents, v1.ListEventsRequest(model=f"{model}x"))
    assert (type(unknown), unknown.reason, unknown.metadata["model"]) == (NotFound, "MODEL_NOT_FOUND", f"{model}x")


def test_events_of_deleted_model_are_found(system: Up) -> None:
    name = new_id()
    system.registry.CreateModel(v1.CreateModelRequest(name=name), timeout=SECONDS)
    system.registry.DeleteModel(v1.DeleteModelRequest(model=name), timeout=SECONDS)
    assert types(events(system, model=name)) == ["ModelDeleted", "ModelCreated"]


def test_events_about_unknown_model_name_are_found(system: Up) -> None:
    target = v1.Target(model=new_id(), alias="champion")
    begin = v1.StartPodRequest(pod_id=new_id(), host="here", endpoint="here:1", targets=[target])
    system.serving.StartPod(begin, timeout=SECONDS)
    assignment = v1.Assignment(target=target, revision=system.heads()["registry"])
    acknowledge = v1.AcknowledgeAssignmentRequest(pod_id=begin.pod_id, assignment=assignment)
    system.serving.AcknowledgeAssignment(acknowledge, timeout=SECONDS)
    assert types(events(system, model=target.model)) == ["AssignmentApplied"]


def test_alias_changes_are_found_by_alias_and_by_cause(system: Up, model: str) -> None:
    system.move(model, 1, "candidate")
    for version in (1, 2):
        system.move(model, version)
    back = v1.RollbackRequest(models=model, aliases="champion")
    system.registry.Rollback(back, timeout=SECONDS)
    removal = v1.RemoveAliasRequest(model=model, alias="candidate")
    system.registry.RemoveAlias(removal, timeout=SECONDS)
    assert types(events(system, model=model, alias="candidate")) == ["AliasRemoved", "AliasMoved"]
    assert types(events(system, model=model, alias="champion")) == ["AliasMoved"] * 3
    (restored,) = events(system, model=model, cause=v1.ALIAS_CAUSE_ROLLBACK)
    assert restored in events(system, model=model, alias="champion")
    assert len(events(system, model=model, cause=v1.ALIAS_CAUSE_REQUEST)) == 4


def export(system: Up, **conditions: object) -> list[v1.RecordedEvent]:
    """Return all events of an export."""
    request = v1.ExportEventsRequest(filter=v1.ListEventsRequest(**conditions))  # type: ignore[arg-type]
    parts = list(system.audit.ExportEvents(request, timeout=SECONDS))
    assert all(0 < len(part.events) <= 500 for part in parts)
    return [event for part in parts for event in part.events]


@pytest.mark.parametrize(
    "conditions", [{}, {"log": "tracking"}, {"type": "AliasMoved"}, {"alias": "champion"}, {"actor": "Zoë"}], ids=str
)
def test_export_has_same_events_as_list_by_log_and_oldest_first(
    system: Up, model: str, conditions: dict[str, object]
) -> None:
    system.move(model, 1)
    system.new_run()
    listed = events(system, 1000, **conditions)
    exported = export(system, **conditions, page_size=1, page_token="no matter")
    assert exported == sorted(listed, key=lambda event: (event.log, event.position))
    assert exported


def move_with_long_reasons(system: Up, model: str) -> None:
    """Move an alias often, with long reasons, so that an export needs more than one part."""
    for version in (1, 2) * 40:
        request = v1.MoveAliasRequest(model=model, alias="champion", version=version, reason="r" * 4_000)
        system.registry.MoveAlias(request, timeout=SECONDS)


def test_export_ends_at_log_heads_of_its_start(system: Up, model: str) -> None:
    move_with_long_reasons(system, model)
    heads = system.heads()
    parts = system.audit.ExportEvents(v1.ExportEventsRequest(), timeout=SECONDS)
    first = next(parts)
    system.move(model, 1)
    system.new_run()
    exported = [*first.events, *(event for part in parts for event in part.events)]
    assert {log: sum(event.log == log for event in exported) for log in heads} == heads


def test_export_resumes_after_any_part(system: Up, model: str) -> None:
    move_with_long_reasons(system, model)
    system.new_run()
    all_parts = list(system.audit.ExportEvents(v1.ExportEventsRequest(), timeout=SECONDS))
    all_events = [event for part in all_parts for event in part.events]
    assert len({part.events[0].log for part in all_parts}) > 1
    system.move(model, 1)
    system.new_run()
    for number, part in enumerate(all_parts, 1):
        rest = system.audit.ExportEvents(v1.ExportEventsRequest(resume_token=part.resume_token), timeout=SECONDS)
        resumed = [event for each in (*all_parts[:number], *rest) for event in each.events]
        assert resumed == all_events


def test_resume_token_of_other_filter_is_rejected(system: Up, model: str) -> None:
    def export_all(request: v1.ExportEventsRequest, **options: Any) -> list[v1.ExportEventsResponse]:
        return list(system.audit.ExportEvents(request, **options))

    registry_part = next(
        system.audit.ExportEvents(v1.ExportEventsRequest(filter=v1.ListEventsRequest(log="registry")), timeout=SECONDS)
    )
    for log in ("", "tracking"):
        request = v1.ExportEventsRequest(filter=v1.ListEventsRequest(log=log), resume_token=registry_part.resume_token)
        error = system.refused(export_all, request)  # type: ignore[arg-type]
        assert (type(error), error.reason) == (InvalidRequest, "INVALID_PAGE")


def test_export_parts_have_bounded_size(system: Up, model: str) -> None:
    move_with_long_reasons(system, model)
    request = v1.ExportEventsRequest(filter=v1.ListEventsRequest(model=model))
    parts = list(system.audit.ExportEvents(request, timeout=SECONDS))
    assert len(parts) > 1
    assert all(part.ByteSize() < 256 * 1024 + 10_000 for part in parts)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (v1.ListEventsRequest(log="nothing"), "UNKNOWN_LOG"),
        (v1.ListEventsRequest(page_token="garbage"), "INVALID_PAGE"),
        (v1.ListEventsRequest(page_token="WzEsMiwzXQ=="), "INVALID_PAGE"),
        (v1.ListEventsRequest(since=Timestamp(seconds=2**50)), "INVALID_TIME"),
        (v1.ListEventsRequest(until=Timestamp(nanos=-5)), "INVALID_TIME"),
        (v1.ListEventsRequest(stream="model/\0"), "INVALID_TEXT"),
    ],
    ids=count(),
)
def test_invalid_list_is_rejected(system: Up, query: v1.ListEventsRequest, reason: str) -> None:
    error = system.refused(system.audit.ListEvents, query)
    assert (type(error), error.reason) == (InvalidRequest, reason)


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        (v1.ListEventsRequest(log="nothing"), "UNKNOWN_LOG"),
        (v1.ListEventsRequest(since=Timestamp(seconds=2**50)), "INVALID_TIME"),
        (v1.ListEventsRequest(model="m\0"), "INVALID_TEXT"),
    ],
    ids=count(),
)
def test_invalid_export_is_rejected(system: Up, filters: v1.ListEventsRequest, reason: str) -> None:
    def export_all(request: v1.ExportEventsRequest, **options: Any) -> list[v1.ExportEventsResponse]:
        return list(system.audit.ExportEvents(request, **options))

    error = system.refused(export_all, v1.ExportEventsRequest(filter=filters))  # type: ignore[arg-type]
    assert (type(error), error.reason) == (InvalidRequest, reason)
